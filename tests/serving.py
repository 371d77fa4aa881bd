"""What tests of SavedModels share: the outputs of a restored session, and those of a loaded SavedModel."""

import numpy as np
from c_loader import Served

SIGNATURE = "serving_default"


def feeds(tf, infos, seed: int = 7) -> dict[str, np.ndarray]:
    """Random values for a signature's inputs, by key."""
    random = np.random.default_rng(seed)
    return {key: _random(random, tf.as_dtype(info.dtype), _shape(info)) for key, info in sorted(infos.items())}


def _shape(info) -> list[int]:
    return [3 if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]


def _random(random, dtype, shape) -> np.ndarray:
    if dtype == "string":
        return random.choice(np.array([b"a", b"b", b"c", b"?"], object), shape)
    if dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if dtype.is_integer:
        return random.integers(0, 3, shape).astype(dtype.as_numpy_dtype)
    return random.standard_normal(shape).astype(dtype.as_numpy_dtype)


def signature_of(tf, directory):
    """The SignatureDef that a SavedModel has."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0].signature_def[SIGNATURE]


def of_session(tf, meta, prefix, signature, values) -> dict[str, np.ndarray]:
    """What the session gives that restored the graph and the checkpoint."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session(config=_config(tf)) as session:
        saver = v1.train.import_meta_graph(str(meta), clear_devices=True)
        saver = saver or v1.train.Saver()
        saver.restore(session, str(prefix))
        # The oldest files list local variables by name only, and TensorFlow makes no objects of them.
        local = [session.graph.get_operation_by_name(f"{v.op.name}/Assign") for v in v1.local_variables()]
        session.run([*local, v1.tables_initializer()])
        return _run(tf, session, signature, values)


def of_loader(tf, directory, tags=("serve",)) -> dict[str, np.ndarray]:
    """What TensorFlow 1's loader gives."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session(config=_config(tf)) as session:
        loaded = v1.saved_model.loader.load(session, list(tags), str(directory))
        signature = loaded.signature_def[SIGNATURE]
        return _run(tf, session, signature, feeds(tf, signature.inputs))


def _run(tf, session, signature, values):
    fed = {signature.inputs[key].name: value for key, value in values.items()}
    fetched = {key: info.name for key, info in signature.outputs.items()}
    return session.run(fetched, fed, options=tf.compat.v1.RunOptions(timeout_in_ms=20_000))


def _config(tf):
    return tf.compat.v1.ConfigProto(device_count={"CPU": 3}, allow_soft_placement=True)


def of_load(tf, directory) -> dict[str, np.ndarray]:
    """What the signature of tf.saved_model.load gives."""
    loaded = tf.saved_model.load(str(directory))
    values = feeds(tf, signature_of(tf, directory).inputs)
    outputs = loaded.signatures[SIGNATURE](**{key: tf.constant(value) for key, value in values.items()})
    return {key: value.numpy() for key, value in outputs.items()}


def of_server(tf, directory) -> dict[str, np.ndarray]:
    """What the loader gives that TensorFlow Serving has."""
    signature = signature_of(tf, directory)
    return Served(tf, directory).run(signature, feeds(tf, signature.inputs))


def of_all(tf, directory) -> list[dict[str, np.ndarray]]:
    """What each loader gives."""
    return [of_loader(tf, directory), of_load(tf, directory), of_server(tf, directory)]


def require_same(tf, meta, prefix, directory) -> dict[str, np.ndarray]:
    """The outputs for random feeds, which the session and all loaders give bit for bit."""
    signature = signature_of(tf, directory)
    expected = of_session(tf, meta, prefix, signature, feeds(tf, signature.inputs))
    for found in of_all(tf, directory):
        assert {key: bits(value) for key, value in found.items()} == {key: bits(v) for key, v in expected.items()}
    return expected


def bits(array) -> object:
    array = np.asarray(array)
    return (array.dtype, array.shape, array.tolist() if array.dtype == object else array.tobytes())
