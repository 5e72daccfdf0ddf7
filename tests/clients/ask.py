"""Ask a running server through each client library that is installed; one line per client, exit status 1 on a failure.

    python -m venv clients && clients/bin/pip install -r tests/clients/requirements.txt
    medical-vqa serve &
    clients/bin/python tests/clients/ask.py http://127.0.0.1:8000 scan.jpg

Each client asks in its own default way, and those that can ask for structured output. Needs nothing of this project.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from typing import Any

QUESTION = "What modality is used to take this image?"
MODEL = "medical-vqa"


def ask_openai(url: str, image: str) -> str:
    import openai

    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    parts: list[Any] = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": image}}]
    chat = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    parts = [{"type": "input_text", "text": QUESTION}, {"type": "input_image", "image_url": image, "detail": "auto"}]
    response = client.responses.create(model=MODEL, input=[{"role": "user", "content": parts}])
    assert chat.choices[0].message.content == response.output_text
    with client.responses.stream(model=MODEL, input=[{"role": "user", "content": parts}]) as stream:
        assert list(stream)[-1].type == "response.completed"
    assert client.models.retrieve(MODEL).object == "model"
    return response.output_text


def ask_litellm(url: str, image: str) -> str:
    import litellm

    parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": image}}]
    options = {
        "model": f"openai/{MODEL}",
        "messages": [{"role": "user", "content": parts}],
        "api_base": url,
        "api_key": "none",
    }
    streamed = litellm.completion(**options, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert litellm.completion(**options).choices[0].message.content == text
    return text


def ask_langchain(url: str, image: str) -> str:
    from langchain_core.messages import HumanMessage, SystemMessage
    from langchain_openai import ChatOpenAI
    from pydantic import BaseModel

    class Reply(BaseModel):
        answer: str
        confidence: float
        abstained: bool

    model = ChatOpenAI(model=MODEL, base_url=url, api_key="none", max_retries=0)
    parts: list[Any] = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": image}}]
    conversation = [SystemMessage("Be brief."), HumanMessage(parts)]
    reply = model.with_structured_output(Reply, method="json_schema").invoke(conversation)
    assert 0 <= reply.confidence <= 1
    return str(model.invoke(conversation).content)


def ask_llama_index(url: str, image: str) -> str:
    from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
    from llama_index.llms.openai_like import OpenAILike

    model = OpenAILike(model=MODEL, api_base=url, api_key="none", is_chat_model=True, max_retries=0)
    return str(model.chat([ChatMessage(blocks=[TextBlock(text=QUESTION), ImageBlock(url=image)])]).message.content)


def ask_agents(url: str, image: str) -> str:
    import agents
    import openai

    agents.set_tracing_disabled(True)
    agents.set_default_openai_client(openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0))
    agent = agents.Agent(name="reader", instructions="Read the image.", model=MODEL)
    parts = [{"type": "input_text", "text": QUESTION}, {"type": "input_image", "image_url": image, "detail": "auto"}]
    result = asyncio.run(agents.Runner.run(agent, [{"role": "user", "content": parts}]))
    return str(result.final_output)


def ask_pydantic_ai(url: str, image: str) -> str:
    from pydantic import BaseModel
    from pydantic_ai import Agent, BinaryContent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    class Reply(BaseModel):
        answer: str
        abstained: bool

    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=url, api_key="none"))
    content = [QUESTION, BinaryContent(base64.b64decode(image.partition(",")[2]), media_type="image/jpeg")]
    reply = Agent(model, output_type=NativeOutput(Reply)).run_sync(content).output
    text = Agent(model, system_prompt="Be brief.").run_sync(content).output
    assert reply.answer
    return str(text)


def ask_instructor(url: str, image: str) -> str:
    import instructor
    import openai
    from pydantic import BaseModel

    class Reply(BaseModel):
        answer: str
        confidence: float
        abstained: bool

    client = instructor.from_openai(openai.OpenAI(base_url=url, api_key="none"), mode=instructor.Mode.JSON_SCHEMA)
    parts: list[Any] = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": image}}]
    reply = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": parts}], response_model=Reply, max_retries=1
    )
    return f"{reply.answer} ({reply.confidence:.2f})"


CLIENTS = {
    "openai": ask_openai,
    "litellm": ask_litellm,
    "langchain_openai": ask_langchain,
    "llama_index.llms.openai_like": ask_llama_index,
    "agents": ask_agents,
    "pydantic_ai": ask_pydantic_ai,
    "instructor": ask_instructor,
}


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def main() -> int:
    os.environ.setdefault("OPENAI_API_KEY", "none")
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it asks the network at import otherwise
    url, path = sys.argv[1].rstrip("/") + "/v1", Path(sys.argv[2])
    image = "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
    failures = 0
    for module, ask in CLIENTS.items():
        if not installed(module):
            print(f"{module}: not installed")
            continue
        try:
            print(f"{module}: {ask(url, image)}", flush=True)
        except Exception:
            failures += 1
            print(f"{module}: FAILED")
            traceback.print_exc()
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
