"""Labels: what is fed for the loss alone.

    x ─▶ MatMul ─▶ CrossEntropy        labels: it meets no weight on its way to the loss
          ▲         ▲
          W         labels

The labels of a sampled loss and of a CRF meet weights too: they are recognized by samplers and names.
"""

import re

from ckpttool.analysis.graphs.endpoints.flow import Flow, is_named
from ckpttool.analysis.graphs.endpoints.layers import Layers
from ckpttool.analysis.graphs.endpoints.losses import Losses
from ckpttool.analysis.graphs.needs import walk
from ckpttool.model.nodes import op_of

_DECODER = re.compile(r"CTC\w*Decoder(?:V\d)?")
_SAMPLER = re.compile(r"\w*CandidateSampler(?:V\d)?")
_LABEL_NAME = re.compile(r"(?:\w*_)?(?:labels?|targets?|tags?|ground_?truth|y_?true)(?:_?\d+)?", re.IGNORECASE)


def labels(flow: Flow, layers: Layers, losses: Losses, shown: set[str]) -> set[str]:
    """The sources that meet no weight before a loss, or that only losses and what is `shown` in summaries need."""
    found = {key for key in layers.sources if layers.body and key not in layers.body and key in losses.made_of}
    found |= _weighted_labels(flow, layers, losses.made_of | shown)
    # What a decoder takes, such as sequence lengths, is no label, whatever else takes it.
    decoders = flow.of_types(_DECODER.fullmatch) & layers.reached
    return found - walk(decoders, flow.inputs, flow.outside)


def _weighted_labels(flow: Flow, layers: Layers, without: set[str]) -> set[str]:
    """Labels that meet weights, and that no end uses but those in `without`; none if no other source meets weights."""
    sources = layers.sources.keys()
    sampled = flow.of_types(_SAMPLER.fullmatch) & layers.reached
    likely = walk((near for name in sampled for near in flow.inputs[name]), flow.inputs, flow.outside)
    likely |= {key for key in sources if is_named(_LABEL_NAME, op_of(key))}
    ends = {key for key in layers.reached if not flow.users.get(key)}
    used = walk(ends - without, flow.inputs, flow.outside)
    return sources & likely - used if sources & layers.body - likely else set()
