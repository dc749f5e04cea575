"""What kserve's own client gets from a server, as one JSON object: url, token and image file are the arguments.

It runs in an environment of its own (see test_protocols.py), so it imports nothing of this project.
"""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def ask(url: str, token: str, image: bytes) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    text = base64.b64encode(image).decode()
    first = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
    second = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    file = InferInput("image", [1], "BYTES")
    file.set_data_from_numpy(np.array([image], dtype=np.object_), binary_data=True)
    tensors = {"json": InferInput("image", [1], "BYTES", data=[text]), "binary": file}
    answers: dict[str, Any] = {
        "v1": await first.infer(url, {"instances": [{"b64": text}]}, model_name="digits", headers=headers)
    }
    for name, tensor in tensors.items():
        request = InferRequest(model_name="digits", infer_inputs=[tensor], request_id=name)
        answer = await second.infer(url, request, model_name="digits", headers=headers)
        answers[name] = {"id": answer.id, **{output.name: output.as_numpy().tolist() for output in answer.outputs}}
    try:
        await first.infer(url, {"instances": [{"b64": "?"}]}, model_name="digits", headers=headers)
    except Exception as error:  # whatever the client makes of a 400
        answers["error"] = str(error)
    return answers


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes()))))
