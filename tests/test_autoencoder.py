"""Autoencoders: sparse stays sparse, seeds, exposure, pipelines, files."""

import re
import warnings
from copy import copy

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from xrt_nb import autoencoder as ae
from xrt_nb.data import EventDataError
from xrt_nb.training import weights_of
from xrt_nb.representations import EtDtCube, EtMap, Flatten
from xrt_nb.simulation import simulate_archive


@pytest.fixture(scope="module")
def archive():
    "A simulated archive."
    return simulate_archive(300, random_state=6)[0]


@pytest.fixture(scope="module")
def maps(archive):
    "Its normalized maps."
    return EtMap(normalize=True).transform(archive)


NAMES = np.arange(300) // 3  # as if each source had been observed three times


@pytest.fixture(scope="module")
def conv(archive, maps):
    "One convolutional network for all tests that only look at it: compiling it takes longer than training."
    model = ae.ConvAutoencoder(3, epochs=1, batch_size=64, random_state=1)
    return model.fit(maps, groups=NAMES, counts=archive.counts)


@pytest.fixture(scope="module")
def cubes(archive):
    "Its normalized cubes, small ones."
    return EtDtCube(12, 8, 8, normalize=True).transform(archive)


def test_sparse_and_dense_rows_train_the_same_network(cubes):
    make = ae.DenseAutoencoder(4, (16,), epochs=2, random_state=1)
    a, b = clone(make).fit(cubes), clone(make).fit(cubes.toarray())
    assert all(np.allclose(x, y, atol=1e-3) for x, y in zip(weights_of(a.model_), weights_of(b.model_)))
    assert np.allclose(a.transform(cubes), b.transform(cubes.toarray()), atol=1e-3)


def test_never_more_than_a_batch_is_dense(cubes, monkeypatch):
    seen, unpack = [], csr_array.toarray
    monkeypatch.setattr(csr_array, "toarray", lambda self, *a, **k: seen.append(self.shape[0]) or unpack(self, *a, **k))
    big = csr_array(np.vstack([cubes.toarray()] * 3))
    ae.DenseAutoencoder(4, (16,), batch_size=32, epochs=1, random_state=1).fit(big).errors(big)
    assert seen and max(seen) <= 512 < big.shape[0]


def test_a_pipeline_from_events_to_latents(archive):
    line = make_pipeline(EtMap(normalize=True), Flatten(), ae.DenseAutoencoder(3, (8,), epochs=1, batch_size=64, random_state=1))
    latents = line.fit_transform(archive)
    assert latents.shape == (300, 3) and np.isfinite(latents).all()
    assert list(line.get_feature_names_out()) == ["ae00", "ae01", "ae02"]
    assert np.array_equal(line.transform(archive), latents)


def test_the_trained_encoder_is_the_network_s(conv, maps):
    keras = ae.require_keras()
    inside = keras.Model(conv.model_.inputs, conv.model_.get_layer("bottleneck").output)
    assert np.abs(inside.predict(maps[..., None], verbose=0) - conv.transform(maps)).max() < 1e-5


def test_observations_of_one_source_stay_together(conv):
    held = conv.validation_rows_
    assert len(held) and not set(NAMES[held]) & set(np.delete(NAMES, held))


def test_bins_without_exposure_have_no_say():
    rng = np.random.default_rng(1)
    counts, cover = rng.poisson(2, (80, 8, 8)).astype(np.float32), np.ones((80, 8))
    counts[:, 3], cover[:, 3] = 0, 0
    model = ae.ConvAutoencoder(2, "poisson", epochs=2, random_state=1).fit(counts, exposure=cover)
    made = model.reconstruct(counts, cover)
    assert made.shape == (80, 8, 8) and (made[:, 3] == 0).all() and (np.delete(made, 3, axis=1) > 0).all()
    assert np.allclose(model.errors(counts, cover), ae.deviance(counts, made), rtol=1e-5)
    with pytest.raises(ValueError, match="`exposure` must be finite"): model.errors(counts, -cover)


def test_deviance_is_that_of_the_poisson_likelihood():
    from scipy.stats import poisson
    rng = np.random.default_rng(3)
    n, mu = rng.poisson(3, (5, 40)), rng.uniform(0.5, 6, (5, 40))
    expect = 2 * (poisson.logpmf(n, np.maximum(n, 1e-300)) - poisson.logpmf(n, mu)).mean(axis=1)
    assert np.allclose(ae.deviance(n, mu), expect)


def test_a_loaded_score_needs_no_training_data(archive, conv, maps, tmp_path):
    model = conv
    path = model.save(tmp_path / "a.npz")
    again = ae.ConvAutoencoder.load(path)
    known = archive.counts[model.validation_rows_]
    inside = (archive.counts >= known.min()) & (archive.counts <= known.max())
    first, second = (m.anomaly_score(maps[inside], archive.counts[inside]) for m in (model, again))
    assert not first.extrapolated.any() and np.allclose(first.z, second.z, atol=1e-3) and first.columns[0] == "extrapolated"
    text = (tmp_path / "a.npz.json").read_text()
    (tmp_path / "a.npz.json").write_text(text.replace('"n_latent": 3', '"n_latent": 4'))
    with pytest.raises(EventDataError, match="was damaged or changed"): ae.load_autoencoder(path)
    text = re.sub(r'\n "seal": "\w+",', "", text)  # as version 0.1 wrote it
    (tmp_path / "a.npz.json").write_text(text.replace('"n_latent": 3', '"n_latent": 4'))
    with pytest.raises(EventDataError): ae.load_autoencoder(path)
    (tmp_path / "a.npz.json").write_text(text.replace('"loss": "mse"', '"run": "me"'))
    with pytest.raises(EventDataError, match="doesn't describe an autoencoder"): ae.load_autoencoder(path)


def test_without_keras_the_encoder_works_and_the_rest_says_how_to_install_it(conv, maps, tmp_path):
    import subprocess
    import sys
    np.save(tmp_path / "maps.npy", maps[:4])
    np.save(tmp_path / "latents.npy", conv.transform(maps[:4]))
    conv.encoder_.save(tmp_path / "encoder.npz")
    code = f"""
import sys
sys.modules["keras"] = sys.modules["jax"] = sys.modules["h5py"] = None
import numpy as np
from xrt_nb.autoencoder import ConvAutoencoder, load_encoder
maps = np.load({str(tmp_path / 'maps.npy')!r})
print(np.array_equal(load_encoder({str(tmp_path / 'encoder.npz')!r}).transform(maps), np.load({str(tmp_path / 'latents.npy')!r})))
for f in (lambda: ConvAutoencoder().fit(np.zeros((9, 24, 16))), lambda: load_encoder("x.h5")):
    try: f()
    except Exception as err: print(type(err).__name__, 'pip install "xrt_nb[ae]"' in str(err))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.split("\n")[:3] == ["True", "MissingExtra True", "MissingExtra True"], done.stdout + done.stderr


# --- scikit-learn ---------------------------------------------------------------------------------------------------

QUICK = ae.DenseAutoencoder(2, (3,), epochs=1, batch_size=16, random_state=1)
EXCEPTIONS = {
    "check_fit2d_1sample": "our sentence counts rows and sources, not samples",
    "check_n_features_in_after_fitting": "our sentence names both shapes and the cure",
}
ESSENTIAL = ["check_no_attributes_set_in_init", "check_parameters_default_constructible", "check_get_params_invariance",
             "check_set_params", "check_estimators_unfitted", "check_estimators_overwrite_params"]


def checked(estimator, name, **more):
    "Run one of scikit-learn's checks."
    from sklearn.utils import estimator_checks
    with warnings.catch_warnings(action="ignore"): getattr(estimator_checks, name)(type(estimator).__name__, clone(estimator), **more)


@pytest.mark.parametrize("name", ESSENTIAL)
def test_scikit_learn_s_essential_checks(name):
    checked(QUICK, name)


@pytest.mark.slow
def test_scikit_learn_accepts_the_estimator():
    from sklearn.utils.estimator_checks import check_estimator
    with warnings.catch_warnings(action="ignore"):
        said = check_estimator(QUICK, expected_failed_checks=EXCEPTIONS, on_fail=None)
    failed = {r["check_name"]: r["exception"] for r in said if r["status"] == "failed"}
    assert failed == {} and len(said) > 30


def test_output_can_be_a_frame(conv, maps):
    frame = copy(conv).set_output(transform="pandas").transform(maps[:5])
    assert frame.columns.tolist() == ["ae00", "ae01", "ae02"] and np.array_equal(frame, conv.transform(maps[:5]))
