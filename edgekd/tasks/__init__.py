"""What "good" means: loss, metric and decoding; one file a task."""

from edgekd.tasks.base import Task, get_task

__all__ = ["Task", "get_task"]
