"""TensorFlow's C++ loader of SavedModels, the one in TensorFlow Serving, through TensorFlow's C API."""

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path

import numpy as np

# A TF_TString, sixteen bytes of which are its text if it is short. (tensorflow/core/platform/ctstring_internal.h)
_STRING_BYTES = 24


class _Output(ctypes.Structure):
    _fields_ = (("op", c_void_p), ("index", c_int))


_POINTERS = [c_void_p] * 5
# Results and arguments. (tensorflow/c/c_api.h, tf_tensor.h, tf_tstring.h)
_FUNCTIONS = {
    "TF_NewStatus": (c_void_p,),
    "TF_GetCode": (c_int, c_void_p),
    "TF_Message": (c_char_p, c_void_p),
    "TF_NewSessionOptions": (c_void_p,),
    "TF_NewGraph": (c_void_p,),
    "TF_LoadSessionFromSavedModel": (
        *(c_void_p, c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, c_void_p, c_void_p),
    ),
    "TF_GraphOperationByName": (c_void_p, c_void_p, c_char_p),
    "TF_AllocateTensor": (c_void_p, c_int, POINTER(c_int64), c_int, c_size_t),
    "TF_TensorData": (c_void_p, c_void_p),
    "TF_TensorByteSize": (c_size_t, c_void_p),
    "TF_TensorType": (c_int, c_void_p),
    "TF_NumDims": (c_int, c_void_p),
    "TF_Dim": (c_int64, c_void_p, c_int),
    "TF_StringInit": (None, c_void_p),
    "TF_StringCopy": (None, c_void_p, c_char_p, c_size_t),
    "TF_SessionRun": (
        *(None, c_void_p, c_void_p, POINTER(_Output), POINTER(c_void_p), c_int),
        *(POINTER(_Output), POINTER(c_void_p), c_int, c_void_p, c_int, c_void_p, c_void_p),
    ),
}


@cache
def _library(directory: Path):
    library = ctypes.CDLL(str(next(directory.glob("libtensorflow_cc.so*"))))
    for name, (result, *arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Served:
    """A SavedModel that the C++ loader has loaded."""

    def __init__(self, tf, directory, tags=("serve",)) -> None:
        self._tf, self._c = tf, _library(Path(tf.__file__).parent)
        self._status, self._graph = self._c.TF_NewStatus(), self._c.TF_NewGraph()
        options, names = self._c.TF_NewSessionOptions(), (c_char_p * len(tags))(*(tag.encode() for tag in tags))
        self._session = self._c.TF_LoadSessionFromSavedModel(
            options, None, str(directory).encode(), names, len(tags), self._graph, None, self._status
        )
        self._check()

    def _check(self) -> None:
        if self._c.TF_GetCode(self._status):
            raise RuntimeError(self._c.TF_Message(self._status).decode())

    def run(self, signature, values) -> dict[str, np.ndarray]:
        """The outputs of a SignatureDef, by key, for values of its inputs."""
        fed = (_Output * len(values))(*(self._output(signature.inputs[key].name) for key in values))
        fetched = (_Output * len(signature.outputs))(*(self._output(i.name) for i in signature.outputs.values()))
        given = (c_void_p * len(values))(*map(self._tensor, values.values()))
        found = (c_void_p * len(signature.outputs))()
        self._c.TF_SessionRun(
            *(self._session, None, fed, given, len(values), fetched, found, len(found), None, 0, None, self._status)
        )
        self._check()
        return {key: self._array(tensor) for key, tensor in zip(signature.outputs, found, strict=True)}

    def _output(self, name: str) -> _Output:
        op, _, index = name.partition(":")
        return _Output(self._c.TF_GraphOperationByName(self._graph, op.encode()), int(index))

    def _tensor(self, array: np.ndarray) -> int:
        dims = (c_int64 * array.ndim)(*array.shape)
        dtype = self._tf.as_dtype("string" if array.dtype == object else array.dtype)
        size = array.size * _STRING_BYTES if array.dtype == object else array.nbytes
        tensor = self._c.TF_AllocateTensor(dtype.as_datatype_enum, dims, array.ndim, size)
        data = self._c.TF_TensorData(tensor)
        if array.dtype != object:
            ctypes.memmove(data, np.ascontiguousarray(array).ctypes.data, size)
            return tensor
        for number, text in enumerate(array.ravel()):
            self._c.TF_StringInit(data + number * _STRING_BYTES)
            self._c.TF_StringCopy(data + number * _STRING_BYTES, text, len(text))
        return tensor

    def _array(self, tensor: int) -> np.ndarray:
        shape = [self._c.TF_Dim(tensor, axis) for axis in range(self._c.TF_NumDims(tensor))]
        data = ctypes.string_at(self._c.TF_TensorData(tensor), self._c.TF_TensorByteSize(tensor))
        dtype = self._tf.as_dtype(self._c.TF_TensorType(tensor)).as_numpy_dtype
        return np.frombuffer(data, dtype).reshape(shape)
