"""The pass from the master to a backend's form."""

from __future__ import annotations

import copy
import json
from types import ModuleType

import numpy as np
import onnx

from edgekd.forms import FORM_KEY, Master, QuantForm, Site
from edgekd.lower import onnxruntime, openvino, tensorrt
from edgekd.lower.cures import Cures, choose_cures, how_weights_meet, saturating_products
from edgekd.lower.floats import store_float16, to_float16
from edgekd.lower.graph import AVERAGES, CLIPS, PASSING, WEIGHTED, Graph, Layer, SiteNode
from edgekd.lower.groups import float_nodes
from edgekd.lower.int32_bias import write_int32_biases
from edgekd.lower.joined import form_at, joined_sites
from edgekd.lower.numbers import clip_at, is_half, least_scale, site_parameters, weight_parameters
from edgekd.lower.overflow import least_scales
from edgekd.lower.permutations import spell_permutations
from edgekd.lower.shield import shield_float_weights
from edgekd.lower.spelling import spell
from edgekd.lower.stored import store_int8
from edgekd.lower.token_sums import misread_sums
from edgekd.lower.tokens import added_bias, bias_of, write_rows
from edgekd.lower.wide_input import widen_input

RULES: dict[str, ModuleType] = {"onnxruntime": onnxruntime, "openvino": openvino, "tensorrt": tensorrt}
# What a backend can run on integers besides weighted layers.
INTEGER_OPS = ("Add", "Mul", "Concat", "MaxPool", *AVERAGES)


def lower(master: Master, form: QuantForm, *, vnni: bool = True) -> onnx.ModelProto:
    """The master as ``form`` says; ``vnni`` False applies the form's cure to the layers that could saturate.

    Raises:
        ValueError: the form keeps layers in float that the master does not have.
    """
    model = onnx.load(master.path)
    saturates = may_saturate(form, vnni=vnni)
    # As it was, for the cures; the graph below is changed in place.
    original = copy.deepcopy(model) if saturates else None
    graph = Graph(model)
    graph.untie_weights()
    unknown = form.float_layers - graph.producer.keys()
    if unknown:
        raise ValueError(f"{form.name} keeps layers in float that the master does not have: {sorted(unknown)}")
    rules = RULES[form.rules]
    in_float = float_nodes(graph, form.float_groups) | form.float_layers
    if form.rules == "tensorrt" and form.integer:
        in_float |= tensorrt.masked_attention(graph)
        in_float |= {
            layer.node.output[0]
            for layer in graph.layers()
            if tensorrt.keeps_float(graph, layer.node, graph.array(layer.weight).shape)
        }
    sites = {site.tensor: site for site in master.sites}
    wrong = saturating_products(graph, sites, form) if saturates else set()
    if form.rules == "openvino" and form.integer:
        wrong |= misread_sums(graph, in_float | wrong, lambda node, others: _may_be_integer(graph, node, others, rules))
    in_float |= wrong
    for name in wrong:
        _reads_float(graph, graph.producer[name])
    graph.refresh()
    # Only now: behind what moves numbers in float the sites stay, for its other readers.
    for site in graph.sites():
        if "all" in form.float_groups or rules.drops(graph, site):
            graph.bypass(site.quantize, site.dequantize)
    _drop_useless_sites(graph, in_float, rules)
    reads = {}
    for layer in graph.layers():
        data = graph.site_of(layer.node.input[0])
        if data is not None and _is_integer(graph, layer.node, in_float, form):
            reads[layer.node.output[0]] = data.input[0]
    cures = Cures()
    if original is not None:
        # On the master, as the check: what several operators read has a site there, which may be gone here.
        cures = cures_of(Graph(original), reads, {site.tensor for site in graph.sites()}, sites, form)
    for layer in graph.layers():
        if layer.node.output[0] in reads:
            _write_weight(graph, layer, sites[reads[layer.node.output[0]]], form, cures)
        else:
            graph.bypass(layer.quantize, layer.dequantize)
    graph.refresh()
    joined = joined_sites(graph, form)
    for node in graph.sites():
        written = form_at(form, node.tensor, joined)
        _write_site(graph, node, sites[node.tensor], written, few_codes=node.tensor in cures.few_codes)
    if form.bias == "int32":
        write_rows(graph)
        write_int32_biases(graph)
    if rules.SPELLS_HARDSWISH:
        spell(graph, form, in_float)
    if rules.SPELLS_PERMUTATIONS:
        spell_permutations(graph)
    if rules.QUANTIZES_WEIGHTS:
        shield_float_weights(graph)
    if form.weights == "int8":
        store_int8(graph, form)
    # Without VNNI which weights meet, and so the cures, would be others.
    if rules.WIDENS_INPUT and form.signed == "u8@128" and vnni:
        widen_input(graph)
    graph.drop_unused()
    if form.float_type == "fp16":
        to_float16(graph) if is_half(form) else store_float16(graph)
    _note(graph.model, form)
    onnx.checker.check_model(graph.model)
    return graph.model


def may_saturate(form: QuantForm, *, vnni: bool) -> bool:
    """Whether sums of two products can leave 16 bits."""
    return not vnni and bool(RULES[form.rules].SATURATES)


def _is_integer(graph: Graph, node: onnx.NodeProto, in_float: set[str], form: QuantForm) -> bool:
    """Whether a weighted node has all that its backend needs to run it on integers."""
    if node.output[0] in in_float:
        return False
    if not RULES[form.rules].NEEDS_OUTPUT_SITE or node.op_type == "Gemm":
        return True
    if form.bias == "int32" and added_bias(graph, node) is not None:
        return True
    return _next_site(graph, node.output[0])


def _next_site(graph: Graph, name: str) -> bool:
    """Whether a value runs into a site, directly, through its bias, or through a Relu or Clip that is absorbed."""
    users = graph.consumers.get(name, [])
    if len(users) == 1 and graph.without_bias(users[0]) is not users[0]:
        users = graph.consumers.get(users[0].output[0], [])
    if len(users) == 1 and users[0].op_type in ("Relu", "Clip"):
        users = graph.consumers.get(users[0].output[0], [])
    return bool(users) and all(user.op_type == "QuantizeLinear" for user in users)


def _reads_float(graph: Graph, node: onnx.NodeProto) -> None:
    """A node, and what moves or clips numbers on their way, reads what is in front of sites, which may stay for others.

    An engine that moves dequantization behind such operators would compute the node in integers all the same.
    """
    for index, name in enumerate(node.input):
        if graph.is_site_output(name):
            node.input[index] = graph.producer[graph.producer[name].input[0]].input[0]
        mover = graph.producer.get(node.input[index])
        if mover is not None and mover.op_type in (*PASSING, *CLIPS):
            _reads_float(graph, mover)


def _drop_useless_sites(graph: Graph, in_float: set[str], rules: ModuleType) -> None:
    """Sites that neither end nor begin anything integer only cost accuracy and time."""
    dropped = True
    # A dropped site makes others useless, never useful: in which order they go makes no difference.
    while dropped:
        dropped = False
        for site in graph.sites():
            if not (_ends_integers(graph, site, in_float, rules) or _begins_integers(graph, site, in_float, rules)):
                graph.bypass(site.quantize, site.dequantize)
                dropped = True


def _ends_integers(graph: Graph, site: SiteNode, in_float: set[str], rules: ModuleType) -> bool:
    producer = graph.producer.get(site.tensor)
    if producer is not None and producer.op_type in CLIPS:
        producer = graph.producer.get(producer.input[0])
    producer = graph.without_bias(producer) if producer is not None else None
    return rules.NEEDS_OUTPUT_SITE and producer is not None and _may_be_integer(graph, producer, in_float, rules)


def _begins_integers(graph: Graph, site: SiteNode, in_float: set[str], rules: ModuleType) -> bool:
    return any(
        _may_be_integer(graph, user, in_float, rules) or _passes_to_integer(graph, user, in_float)
        for user in graph.consumers.get(site.dequantize.output[0], [])
    )


def _may_be_integer(graph: Graph, node: onnx.NodeProto, in_float: set[str], rules: ModuleType) -> bool:
    if node.output[0] in in_float:
        return False
    if node.op_type == "Resize":
        mode = next((one.s.decode() for one in node.attribute if one.name == "mode"), "nearest")
        source = graph.source(node.input[0])
        if source is not None and source.op_type in CLIPS:
            source = graph.source(source.input[0])
        # An addition is part of a convolution's kernel.
        return mode in rules.RESIZES_INTEGERS and source is not None and source.op_type in (*WEIGHTED, "Add")
    if node.op_type == "Add" and rules.FUSES_ADD:
        return any(graph.is_quantized(name) for name in node.input)
    data = graph.data_inputs(node) if node.op_type in WEIGHTED else node.input
    if node.op_type in (*AVERAGES, "MaxPool"):
        data = node.input[:1]
    return node.op_type in (*WEIGHTED, *INTEGER_OPS) and all(graph.is_quantized(name) for name in data)


def _passes_to_integer(graph: Graph, node: onnx.NodeProto, in_float: set[str]) -> bool:
    """Whether a node only moves numbers, and something integer (or a site) comes behind it."""
    if node.op_type not in PASSING:
        return False
    users = [user for name in node.output for user in graph.consumers.get(name, [])]
    return any(
        (user.op_type in (*WEIGHTED, *INTEGER_OPS) and user.output[0] not in in_float)
        or user.op_type == "QuantizeLinear"
        or _passes_to_integer(graph, user, in_float)
        for user in users
    )


def cures_of(graph: Graph, reads: dict[str, str], kept: set[str], sites: dict[str, Site], form: QuantForm) -> Cures:
    """`edgekd.lower.cures.choose_cures` of a backend."""
    signs: dict[str, str] = {name: site.sign for name, site in sites.items()}
    return choose_cures(graph, reads, kept, signs, form, fuses_clips=RULES[form.rules].FUSES_CLIPS)


def _write_weight(graph: Graph, layer: Layer, site: Site, form: QuantForm, cures: Cures) -> None:
    """Float weight, Q and DQ become an int8 constant and a DQ, with the master's scale (or its allowed tightening)."""
    codes, written = written_weight(graph, layer, site, form, tighten=cures.tightens(layer.node.output[0]))
    owner = layer.node.output[0]
    parameters = {"int8": codes, "scale": written, "zero_point": np.zeros(written.shape, np.int8)}
    for index, (kind, value) in enumerate(parameters.items()):
        layer.dequantize.input[index] = graph.add_constant(f"{layer.weight}_{kind}", value, owner)
    graph.remove(layer.quantize)


def written_weight(
    graph: Graph, layer: Layer, site: Site, form: QuantForm, *, tighten: bool
) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes and float32 scales (channels,) of a layer of the master's ``graph``; see `edgekd.lower.overflow`."""
    weight, scale = graph.array(layer.weight), graph.array(layer.quantize.input[1])
    least = _bias_floor(graph, layer, site, form)
    codes, written = weight_parameters(weight, scale, layer.axis, form, least=least)
    if not tighten:
        return codes, written
    least = np.maximum(least, least_scales(weight, codes, layer.axis, how_weights_meet(graph, layer)))
    return weight_parameters(weight, scale, layer.axis, form, least=least)


def _bias_floor(graph: Graph, layer: Layer, site: Site, form: QuantForm) -> np.ndarray | float:
    """The smallest scales of a layer's weight where the backend makes int32 of its bias; 0 where there is no bound."""
    bias = layer.node.input[2] if len(layer.node.input) > 2 else None
    if form.bias == "int32" and (add := added_bias(graph, layer.node)) is not None:
        bias = bias_of(graph, add)
    if not RULES[form.rules].INTEGER_BIAS or bias is None:
        return 0.0
    data_scale, _ = site_parameters(site, form)
    return least_scale(graph.array(bias), data_scale)


def _write_site(graph: Graph, node: SiteNode, site: Site, form: QuantForm, *, few_codes: bool) -> None:
    """The same clipping range in the form's integer type; written out as a Clip where the type has codes beyond."""
    if few_codes:
        _clip(graph, graph.producer[node.tensor], clip_at(graph.array(node.quantize.input[1])))
    scale, zero_point = site_parameters(site, form, few_codes=few_codes)
    scale_name = graph.set_constant(f"{node.tensor}_scale", scale)
    zero_name = graph.set_constant(f"{node.tensor}_zero_point", zero_point)
    for one in (node.quantize, node.dequantize):
        one.input[1], one.input[2] = scale_name, zero_name
        for attribute in [a for a in one.attribute if a.name in ("output_dtype", "axis")]:
            one.attribute.remove(attribute)


def _clip(graph: Graph, node: onnx.NodeProto, highest: np.ndarray) -> None:
    """A Relu or Clip ends at ``highest``, where the master's rounding behind it clips."""
    if node.op_type == "Relu":
        node.op_type = "Clip"
        node.input.append(graph.set_constant(f"{node.output[0]}_lowest", np.array(np.float32(0))))
    name = graph.set_constant(f"{node.output[0]}_highest", highest)
    node.input[:] = [*node.input[:2], name]
    graph.refresh()


def _note(model: onnx.ModelProto, form: QuantForm) -> None:
    kept = [entry for entry in model.metadata_props if entry.key not in (FORM_KEY, "edgekd.role")]
    values = {FORM_KEY: json.dumps(form.to_json(), sort_keys=True), "edgekd.role": "lowered"}
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    for key, value in values.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    del model.graph.value_info[:]
