"""Writes what TensorFlow's registry says of each op's outputs, for `ckpttool/proto/ops.pb`: an OpList.

Of an op its name, its outputs, and the defaults of the attributes that these go by; which inputs are references, if any
is; and since when new graphs may not have it, if that is so.

python tests/op_defs.py > ckpttool/proto/ops.pb
"""

import sys

from ckpttool import proto

_SAID = ("name", "type", "type_attr", "number_attr", "type_list_attr", "is_ref")


def op_list() -> bytes:
    """The ops that the installed TensorFlow registers, by name."""
    from tensorflow.python.client import pywrap_tf_session

    buffer = pywrap_tf_session.TF_GetAllOpList()
    registered = proto.message_class("OpList").FromString(pywrap_tf_session.TF_GetBuffer(buffer))
    pywrap_tf_session.TF_DeleteBuffer(buffer)
    kept = proto.message_class("OpList")()
    for op in sorted(registered.op, key=lambda op: op.name):
        made = kept.op.add(name=op.name)
        for argument in op.output_arg:
            said = {field.name: value for field, value in argument.ListFields() if field.name in _SAID}
            made.output_arg.add(**said)
        if any(argument.is_ref for argument in op.input_arg):
            for argument in op.input_arg:
                made.input_arg.add(is_ref=argument.is_ref)
        if op.HasField("deprecation"):
            made.deprecation.version = op.deprecation.version
        used = {text for argument in made.output_arg for text in (argument.type_attr, argument.number_attr)}
        used |= {argument.type_list_attr for argument in made.output_arg}
        for attr in op.attr:
            if attr.name in used and attr.HasField("default_value"):
                made.attr.add(name=attr.name, default_value=attr.default_value)
    return bytes(kept.SerializeToString(deterministic=True))


if __name__ == "__main__":
    sys.stdout.buffer.write(op_list())
