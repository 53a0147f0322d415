"""The published encoder: hostile and damaged files, nothing run, numpy and Keras alike."""

import base64
import json
import marshal
import shutil
import subprocess
import sys

import numpy as np
import pytest

from xrt_nb.data import EventDataError
from xrt_nb.published import ARCHITECTURE, IDENTITY, Encoder, Layer, is_identity, load_encoder, load_published_encoder

h5py = pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def official(shared):
    "The authors' file."
    return shared / "data" / "official" / "encoder_et.h5"


def with_config(official, path, change):
    "A copy of the authors' file with another description."
    shutil.copy(official, path)
    with h5py.File(path, "r+") as f:
        config = json.loads(f.attrs["model_config"])
        change(config["config"]["layers"])
        f.attrs["model_config"] = json.dumps(config)
    return path


def lambda_of(function):
    "A function the way Keras 2 stored it."
    return [base64.encodebytes(marshal.dumps(function.__code__)).decode(), None, None]


def test_the_real_file_is_the_architecture(official):
    encoder = load_published_encoder(official)
    assert [(v.kind, v.weights[0].shape if v.weights else (), v.stride) for v in encoder.layers] == ARCHITECTURE
    assert sum(w.size for v in encoder.layers for w in v.weights) == 94_076
    assert np.isfinite(encoder.transform(np.random.default_rng(0).random((5, 24, 16)))).all()


def test_nothing_in_a_file_is_run(official, tmp_path):
    "An audit hook sees every exec, unmarshalling, unpickling and import of the interpreter while files are read."
    trace = tmp_path / "it_ran"
    evil = with_config(official, tmp_path / "evil.h5", lambda layers: layers[1]["config"].update(function=lambda_of(eval(f"lambda x: open({str(trace)!r}, 'w')"))))
    code = f"""
import sys
from xrt_nb.data import EventDataError
from xrt_nb.published import load_published_encoder
load_published_encoder({str(official)!r})  # everything is imported now
seen, on = [], True
sys.addaudithook(lambda event, args: seen.append(event) if on else None)
load_published_encoder({str(official)!r})
try: load_published_encoder({str(evil)!r})
except EventDataError as err: print("lambda_5" in str(err))
on = False
print(sorted({{e for e in seen if e.split(".")[0] in ("exec", "marshal", "pickle", "import", "ctypes", "socket")}}))  # numpy parses array headers, which is no exec
from xrt_nb.published import READER  # the same of the other process, whose program this is
import h5py, numpy, zipfile
sys.argv = ["-c", {str(evil)!r}, {str(tmp_path / "out.npz")!r}, "1000000"]
program, seen, on = compile(READER, "reader", "exec"), [], True
exec(program)
on = False
print(seen.count("exec"), sorted({{e for e in seen if e.split(".")[0] in ("marshal", "pickle", "subprocess", "os", "ctypes", "socket") and e not in ("os.listdir", "os.scandir", "os.stat")}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.split("\n")[:3] == ["True", "[]", "1 []"], done.stdout + done.stderr
    assert not trace.exists()


@pytest.mark.parametrize("function", [lambda x: -x, lambda x, y=1: x, lambda *x: x, lambda: None])
def test_only_the_identity_of_python_3_8_is_left_out(official, tmp_path, function):
    spoil = with_config(official, tmp_path / "spoiled.h5", lambda layers: layers[1]["config"].update(function=lambda_of(function)))
    with pytest.raises(EventDataError, match="lambda_5.*not the identity"):
        load_published_encoder(spoil)


def test_every_byte_of_the_identity_matters():
    config = {"function_type": "lambda", "arguments": {}}
    assert is_identity(config | {"function": [base64.encodebytes(IDENTITY + b"rest").decode(), None, None]})
    for i in range(len(IDENTITY)):
        other = IDENTITY[:i] + bytes([IDENTITY[i] ^ 1]) + IDENTITY[i + 1:]
        assert not is_identity(config | {"function": [base64.encodebytes(other + b"rest").decode(), None, None]})
    assert not is_identity(config | {"function": [base64.encodebytes(IDENTITY).decode(), [1], None]})
    assert not is_identity(config | {"function": "not even base64 §", "arguments": {"a": 1}})


@pytest.mark.parametrize("change, words", [
    (lambda layers: layers.insert(2, layers[1] | {"name": "lambda_6", "config": layers[1]["config"] | {"name": "lambda_6", "function": lambda_of(lambda x: x * 2)}}), "doesn't follow|not the identity"),
    (lambda layers: layers[2]["config"].update(groups=2), "groups = 2"),
    (lambda layers: layers[2]["config"].update(dilation_rate=[2, 2]), "dilation_rate"),
    (lambda layers: layers[4]["config"].update(strides=[1, 1]), "arrays of shape"),
    (lambda layers: layers[0]["config"].update(batch_input_shape=[None, 12, 16, 1]), "arrays of shape"),
    (lambda layers: layers[-1].update(class_name="Evil>Dense"), "unknown kind"),
    (lambda layers: layers[-1]["config"].update(name="elsewhere"), "no array 'model_weights/elsewhere"),
    (lambda layers: layers.clear(), "no layers"),
    (lambda layers: layers[2].pop("config"), "not a legacy Keras model"),
])
def test_changed_descriptions_are_refused(official, tmp_path, change, words):
    with pytest.raises(EventDataError, match=words):
        load_published_encoder(with_config(official, tmp_path / "changed.h5", change))


def test_weights_that_are_not_finite_are_refused(official, tmp_path):
    shutil.copy(official, tmp_path / "nan.h5")
    with h5py.File(tmp_path / "nan.h5", "r+") as f:
        f["model_weights/bottleneck/bottleneck/bias:0"][3] = np.nan
    with pytest.raises(EventDataError, match="'bottleneck' holds weights that are not finite"):
        load_published_encoder(tmp_path / "nan.h5")


def test_links_to_other_files_are_not_followed(official, tmp_path):
    shutil.copy(official, tmp_path / "linked.h5")
    with h5py.File(tmp_path / "linked.h5", "r+") as f:
        del f["model_weights/bottleneck/bottleneck/bias:0"]
        f["model_weights/bottleneck/bottleneck/bias:0"] = h5py.ExternalLink(str(official), "/model_weights/bottleneck/bottleneck/bias:0")
    with pytest.raises(EventDataError, match="no array"):
        load_published_encoder(tmp_path / "linked.h5")


def test_an_array_that_claims_too_much_is_not_read(official, tmp_path):
    shutil.copy(official, tmp_path / "bomb.h5")
    with h5py.File(tmp_path / "bomb.h5", "r+") as f:
        group = f["model_weights/bottleneck/bottleneck"]
        del group["bias:0"]
        group.create_dataset("bias:0", shape=(10 ** 12,), dtype="f4", chunks=(10 ** 6,), compression="gzip")
    with pytest.raises(EventDataError, match="claims 1,000,000,000,000 numbers"):
        load_published_encoder(tmp_path / "bomb.h5")


def test_damaged_copies_are_refused_or_read_whole(official, tmp_path):
    "Flipped, cut and blanked bytes: an encoder of finite numbers, or one kind of error."
    rng, whole, refused = np.random.default_rng(7), official.read_bytes(), 0
    path = tmp_path / "damaged.h5"
    for k in range(20):
        data = bytearray(whole)
        at = int(rng.integers(0, 20_000 if k % 2 else len(data)))  # half of them where the structure is
        if k % 3 == 0: data = data[:at]
        elif k % 3 == 1: data[at:at + 8] = rng.bytes(8)
        else: data[at:at + 64] = bytes(64)
        path.write_bytes(data)
        try:
            assert np.isfinite(load_published_encoder(path, time_limit=5).transform(np.ones((1, 24, 16)))).all()
        except EventDataError: refused += 1
    assert refused >= 7


def test_a_file_that_can_not_be_finished_is_given_up(official, tmp_path):
    with pytest.raises(EventDataError, match="stopped after 0.01 s"):
        load_published_encoder(official, time_limit=0.01)


def test_a_dense_encoder_is_read_from_its_own_list(tmp_path):
    "A legacy Sequential model of dense layers and a normalisation, on flattened cubes."
    rng = np.random.default_rng(2)
    sizes, layers = (60, 8, 3), []
    with h5py.File(tmp_path / "dense.h5", "w") as f:
        for i, (n, m) in enumerate(zip(sizes, sizes[1:])):
            name = f"dense_{i}"
            layers.append({"class_name": "Dense", "config": {"name": name, "units": m, "activation": "relu" if i == 0 else "linear"} | ({"batch_input_shape": [None, n]} if i == 0 else {})})
            f[f"model_weights/{name}/{name}/kernel:0"] = rng.normal(size=(n, m)).astype(np.float32)
            f[f"model_weights/{name}/{name}/bias:0"] = rng.normal(size=m).astype(np.float32)
        f.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"name": "s", "layers": layers}})
    encoder = load_encoder(tmp_path / "dense.h5")
    x = rng.random((7, 60)).astype(np.float32)
    a, b = encoder.layers
    assert np.allclose(encoder.transform(x), np.maximum(x @ a.weights[0] + a.weights[1], 0) @ b.weights[0] + b.weights[1], atol=1e-5)
    assert np.abs(encoder.transform(x) - encoder.to_keras().predict(x, verbose=0)).max() < 1e-5


def test_sparse_and_dense_rows_give_the_same_latents():
    from scipy.sparse import random_array
    rng = np.random.default_rng(4)
    encoder = Encoder([Layer("dense", "d", (rng.normal(size=(50, 4)).astype(np.float32), np.zeros(4, np.float32)), slope=0.1)], (50,))
    x = random_array((30, 50), density=0.1, rng=rng, format="csr", dtype=np.float32)
    assert np.allclose(encoder.transform(x), encoder.transform(x.toarray()), atol=1e-5)
    counts = Encoder(encoder.layers, (50,), counts=True)
    whole = x.toarray() * 7
    assert np.allclose(counts.transform(x * 7), encoder.transform(whole / whole.max(axis=1, keepdims=True).clip(1e-9)), atol=1e-5)


def test_constants_that_no_arithmetic_takes(tmp_path):
    ones = np.ones(1, np.float32)
    def chain(variance=ones, slope=1.0, **norm):
        layers = [Layer("norm", "n", (ones, ones, ones, variance), **norm), Layer("flatten", "f"),
                  Layer("dense", "d", (np.ones((384, 2), np.float32), np.ones(2, np.float32)), slope)]
        return Encoder(layers, (24, 16, 1))
    for k, good in enumerate((chain(), chain(variance=0 * ones), chain(epsilon=0.0))):
        assert np.isfinite(load_encoder(good.save(tmp_path / f"good{k}.npz")).transform(np.ones((1, 24, 16)))).all()
    wrong = dict(nan=chain(epsilon=np.nan), inf=chain(epsilon=np.inf), below=chain(epsilon=-1e-3), spread=chain(variance=-ones),
                 nothing=chain(variance=0 * ones, epsilon=0.0), slope=chain(slope=np.nan))
    for name, encoder in wrong.items():
        with pytest.raises(EventDataError, match="layer 'n'|layer 'd'"): load_encoder(encoder.save(tmp_path / f"{name}.npz"))
