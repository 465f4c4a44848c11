"""What an unmodified client of the Open Inference Protocol finds.

    python oip.py HOST:PORT
"""

import sys

import numpy
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

client = triton.InferenceServerClient(sys.argv[1])
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("iris") and client.is_model_ready("iris", "1") and client.is_model_ready("iris", "2")
assert not client.is_model_ready("iris", "9") and not client.is_model_ready("wine")
server = client.get_server_metadata()
assert server["name"] == "cloister" and "binary_tensor_data" in server["extensions"], server
for version in ["", "1", "2"]:
    model = client.get_model_metadata("iris", version)
    assert model["versions"] == ["1", "2"], model
    assert [tensor["name"] for tensor in model["inputs"]] == ["public_key", "ciphertext"], model
    assert [tensor["name"] for tensor in model["outputs"]] == ["ciphertext", "receipt"], model
    assert all(tensor["datatype"] == "BYTES" and tensor["shape"] == [1] for tensor in model["inputs"] + model["outputs"]), model
try:
    client.get_model_metadata("wine")
    raise AssertionError("there is no such model")
except InferenceServerException as error:
    assert "no model of this name" in error.message(), error

# Plaintext of any datatype, in JSON and in binary, is refused with the reason.
DATATYPES = {
    "FP32": numpy.float32, "FP64": numpy.float64, "FP16": numpy.float16, "INT8": numpy.int8, "INT16": numpy.int16,
    "INT32": numpy.int32, "INT64": numpy.int64, "UINT8": numpy.uint8, "UINT16": numpy.uint16, "UINT32": numpy.uint32,
    "UINT64": numpy.uint64, "BOOL": numpy.bool_,
}
for datatype, dtype in DATATYPES.items():
    for binary in [True, False]:
        if datatype == "FP16" and not binary:
            continue  # The client itself has no JSON for it.
        tensor = triton.InferInput("X", [1, 4], datatype)
        tensor.set_data_from_numpy(numpy.array([[5, 3, 1, 0]]).astype(dtype), binary_data=binary)
        try:
            client.infer("iris", [tensor], request_id="plain-1")
            raise AssertionError(f"plaintext {datatype} was accepted")
        except InferenceServerException as error:
            assert datatype in error.message() and "encrypt" in error.message(), error
# Bytes that are no ciphertext.
tensor = triton.InferInput("ciphertext", [1], "BYTES")
tensor.set_data_from_numpy(numpy.array([b"no ciphertext"], dtype=object))
try:
    client.infer("iris", [tensor], model_version="1")
    raise AssertionError("no ciphertext was accepted")
except InferenceServerException as error:
    assert error.status() == "400", error
print("ok")
