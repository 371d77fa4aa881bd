"""Which ops and kernels the TensorFlow at hand has."""

import os
from functools import cache
from typing import Any

from ckpttool.errors import NotSupportedError
from ckpttool.runtime.importing import first_line
from ckpttool.transforms.preparing.lacking import HERE

# Rewritten before anything is placed, so they need no kernel.
_REWRITTEN = {"AccumulateNV2", "ParallelConcat", "_ParallelConcatStart", "_ParallelConcatUpdate"}
_EVERYWHERE = {"CPU", "DEFAULT"}
# Fields of AttrValue that kernels constrain: GatherNd wants one of several texts, ApproxTopK a certain number.
_CONSTRAINED = ("type", "s", "i", "b")


class InstalledRegistry:
    """What `transforms.preparing` asks: the op definitions and kernels of this process."""

    def __init__(self, tensorflow: Any) -> None:
        from tensorflow.python.framework import kernels, op_def_registry

        self.version: int = tensorflow.version.GRAPH_DEF_VERSION
        self._op_defs, self._kernels = op_def_registry, kernels
        self.devices = _EVERYWHERE | {device.device_type for device in tensorflow.config.list_physical_devices()}
        self.op_def = cache(self._op_def)
        self._kernels_of = cache(self._registered_kernels)

    def _op_def(self, type_: str) -> Any:
        return self._op_defs.get(type_)

    def _registered_kernels(self, type_: str) -> tuple[Any, ...]:
        return tuple(self._kernels.get_registered_kernels_for_op(type_).kernel)

    def no_kernel(self, node: Any) -> str | None:
        """Why an op can't run on the devices that are there; None if it can."""
        if node.op in _REWRITTEN:
            return None
        # A compiler's kernels are registered when it is first used, and nobody can place an op on its devices.
        kernels = [kernel for kernel in self._kernels_of(node.op) if not kernel.device_type.endswith("_JIT")]
        here = [kernel for kernel in kernels if kernel.device_type in self.devices]
        if any(_fits(kernel, node) for kernel in here):
            return None
        elsewhere = sorted({kernel.device_type for kernel in kernels if _fits(kernel, node)} - self.devices)
        if elsewhere:
            return f"{node.op} runs on {' and '.join(elsewhere)} only, which is not here"
        if here:
            return f"no kernel of {node.op} takes these attributes here"
        return f"{HERE} has no kernel of {node.op}{' (it is for TPUs)' if 'TPU' in node.op else ''}"


def _fits(kernel: Any, node: Any) -> bool:
    """Whether an op has the types, and the other values of attributes, that a kernel wants.

    (tensorflow/core/framework/kernel_def_util.cc KernelAttrsMatch)
    """
    for constraint in kernel.constraint:
        if constraint.name not in node.attr:  # The attribute has its default.
            continue
        value = node.attr[constraint.name]
        if value.WhichOneof("value") == "placeholder":  # The call of the function says it.
            continue
        allowed = constraint.allowed_values.list
        kind = next((kind for kind in _CONSTRAINED if getattr(allowed, kind)), "type")
        has = getattr(value.list, kind) if value.WhichOneof("value") == "list" else [getattr(value, kind)]
        if not set(has) <= set(getattr(allowed, kind)):
            return False
    return True


def load_op_library(tensorflow: Any, path: str) -> None:
    """Loads kernels and ops from a shared library into this process.

    Raises:
        NotSupportedError: it can't be loaded.
    """
    try:
        # A name without a directory would be looked for elsewhere.
        tensorflow.load_op_library(os.path.abspath(path) if os.path.exists(path) else path)
    except (tensorflow.errors.OpError, RuntimeError, OSError) as error:
        raise NotSupportedError(f"the op library can't be loaded: {first_line(error)}", path=path) from error
