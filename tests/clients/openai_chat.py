"""The official OpenAI SDK, unmodified, with a client certificate and a key that is none."""

import httpx
import openai
from common import ARGUMENT, base_url, context, finish

http2 = ARGUMENT.get("http2", False)
client = openai.OpenAI(
    base_url=base_url(ARGUMENT["path"]),
    api_key="unused",
    max_retries=0,
    http_client=httpx.Client(verify=context(), http1=not http2, http2=http2, trust_env=False),
)
call = {
    "model": ARGUMENT["model"],
    "messages": [{"role": "user", "content": "hello"}],
    "max_completion_tokens": ARGUMENT.get("cap", 100),
}
if ARGUMENT.get("include_usage"):
    call["stream_options"] = {"include_usage": True}
if ARGUMENT.get("cap", 100) is None:
    del call["max_completion_tokens"]


def usage_of(answer):
    return answer.usage.model_dump(include={"prompt_tokens", "completion_tokens"}) if answer.usage else None


try:
    if ARGUMENT.get("api") == "responses":
        answer = client.responses.create(
            model=ARGUMENT["model"], input="hello", max_output_tokens=100, stream=bool(ARGUMENT.get("stream"))
        )
        if ARGUMENT.get("stream"):
            events = list(answer)
            answer = events[-1].response
        usage = answer.usage.model_dump(include={"input_tokens", "output_tokens"})
        finish(text=answer.output_text, usage=usage)
    elif ARGUMENT.get("stream"):
        text, usage, empty, chunks, model = "", None, 0, 0, None
        for chunk in client.chat.completions.create(stream=True, **call):
            chunks += 1
            usage, model = usage_of(chunk) or usage, chunk.model
            if not chunk.choices:
                empty += 1
                continue
            text += chunk.choices[0].delta.content or ""
        finish(text=text, usage=usage, model=model, chunks=chunks, chunks_without_choices=empty)
    else:
        raw = client.chat.completions.with_raw_response.create(**call)
        answer = raw.parse()
        finish(text=answer.choices[0].message.content, usage=usage_of(answer), model=answer.model, version=raw.http_response.http_version)
except openai.APIStatusError as error:
    headers = error.response.headers
    finish(
        status=error.status_code,
        message=error.message,
        body=error.body,
        id=error.request_id,
        own_id=headers.get("x-tollgate-request-id"),
        reason=headers.get("x-tollgate-reason"),
    )
except openai.APIConnectionError as error:
    finish(connection=repr(error.__cause__))
