"""Key -> folder: content-addressed, atomic, locked, prunable.

An artifact is built in a temporary folder on the same file system; the list of its files and hashes is written last,
everything is synced, then the folder is renamed into place and its parent synced. A reader trusts only a folder whose
list is there and holds. Lock files hold no state: the kernel's locks (filelock) vanish with their process.
"""

from edgekd.store.artifacts import Artifact, Store
from edgekd.store.atomic import write_bytes_atomic, write_text_atomic
from edgekd.store.prune import Entry

__all__ = ["Artifact", "Entry", "Store", "write_bytes_atomic", "write_text_atomic"]
