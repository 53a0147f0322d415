"""What the fuzzers of files of numbers call: everything that a file says, as one digest."""
import hashlib

import numpy as np

from xrt_nb.training import read_arrays
from xrt_nb.metric import LearnedMetric
from xrt_nb.runs import load_representations
from xrt_nb.published import load_encoder


def digest(arrays):
    "Names, types, shapes and values in one line."
    h = hashlib.sha256()
    for name in sorted(arrays):
        a = np.asarray(arrays[name])
        h.update(f"{name} {a.dtype.str} {a.shape}".encode() + np.ascontiguousarray(a).tobytes())
    return h.hexdigest()


def arrays(path): return digest(read_arrays(path))


def pictures(path):
    "Maps or cubes with their ids."
    ids, found = load_representations(path)
    dense = found if isinstance(found, np.ndarray) else found.toarray()
    return digest({"ids": ids, "values": dense})


def encoder(path):
    "An encoder's layers and what they make of a map."
    made = load_encoder(path)
    return digest({"latents": made.transform(np.linspace(0, 1, 384).reshape(1, 24, 16))})


def metric(path):
    "The learned metric's numbers."
    return digest(LearnedMetric(path).load().state())
