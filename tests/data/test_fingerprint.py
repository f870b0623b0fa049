"""The fingerprint is one JSON object, read and written without torch."""

import json
import subprocess
import sys

from adarem.data import fingerprint


def test_fingerprint_is_one_json_object(copied):
    found = fingerprint.read_fingerprint(copied, "train")
    assert found == json.loads(fingerprint.fingerprint_path(copied, "train").read_text())
    assert found["num_images"] == 61 and found["num_classes"] == 7 and found["write"]["mode"] == "proportion"
    assert found["versions"]["ffcv"] == "1.0.2" and len(found["content_hash"]) == 64


def test_prepare_fingerprint_and_beton_need_no_torch():
    program = """
import sys
import adarem.data, adarem.data.prepare, adarem.data.fingerprint, adarem.data.ffcv.beton, adarem.data.images.digits
assert not {"torch", "ffcv", "numba", "hydra", "sklearn", "cv2"} & set(sys.modules), sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
