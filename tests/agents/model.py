"""A model with a script, in the place of the agents' own services: it has the agent run one command after
the other and says that it is done. net_servers.py takes its routes (KB_WORLD_MODEL).

What to run is in the file `model-script` of the servers' directory, one command a line; which comes next
follows from how many results the request brings along. Whoever asks without tools (a title, a summary)
gets a sentence.
"""
import json
import os
import sys

DONE = "All steps are done."


def steps():
    with open(os.path.join(sys.argv[1], "model-script")) as f:
        return [line.rstrip("\n") for line in f if line.strip()]


def events(http, list_of_events):
    body = "".join("event: %s\ndata: %s\n\n" % (e["type"], json.dumps(e)) for e in list_of_events)
    http.answer(body, more=["Content-Type: text/event-stream"])


# ---- Anthropic: messages -----------------------------------------------------------------------------

def results_of_messages(messages):
    return sum(1 for m in messages if isinstance(m["content"], list)
               for part in m["content"] if part.get("type") == "tool_result")


def messages(http, rest):
    if http.line[0] != "POST" or rest.startswith("/count"):
        return http.answer('{"input_tokens": 10}', more=["Content-Type: application/json"])
    asked = json.loads(http.body)
    todo, at = steps(), results_of_messages(asked["messages"])
    names = [t.get("name") for t in asked.get("tools", [])]
    shell = [name for name in names if name in ("Bash", "bash")]
    if shell and at < len(todo):
        block = {"type": "tool_use", "id": "toolu_%d" % at, "name": shell[0], "input": {}}
        delta = {"type": "input_json_delta",
                 "partial_json": json.dumps({"command": todo[at], "description": "step %d" % at})}
        reason = "tool_use"
    else:
        block, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": DONE}
        reason = "end_turn"
    usage = {"input_tokens": 10, "output_tokens": 10}
    message = {"id": "msg_%d" % at, "type": "message", "role": "assistant", "model": asked["model"],
               "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    if not asked.get("stream"):
        if reason == "end_turn":
            message["content"] = [{"type": "text", "text": DONE}]
        message["stop_reason"] = reason
        return http.answer(json.dumps(message), more=["Content-Type: application/json"])
    events(http, [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"}])


# ---- OpenAI: responses -------------------------------------------------------------------------------

def call_of(tools, command, at):
    """A call of whichever tool runs commands."""
    for tool in tools:
        name = tool.get("name", tool.get("type", ""))
        if name in ("shell", "container.exec"):
            arguments = {"command": ["bash", "-lc", command]}
        elif name == "shell_command":
            arguments = {"command": command}
        elif name == "exec_command":
            arguments = {"cmd": command}
        else:
            continue
        return {"type": "function_call", "id": "fc_%d" % at, "call_id": "call_%d" % at, "name": name,
                "arguments": json.dumps(arguments)}
    return None


def responses(http, rest):
    if http.line[0] != "POST":
        return http.answer("{}", "404 Not Found", ["Content-Type: application/json"])
    asked = json.loads(http.body)
    at = sum(1 for item in asked["input"] if item.get("type", "").endswith("_output"))
    todo = steps()
    item = call_of(asked.get("tools", []), todo[at], at) if at < len(todo) else None
    if item is None:
        item = {"type": "message", "id": "msg_%d" % at, "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": DONE, "annotations": []}]}
    response = {"id": "resp_%d" % at, "object": "response", "status": "in_progress", "output": []}
    usage = {"input_tokens": 10, "output_tokens": 10, "total_tokens": 20,
             "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    events(http, [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed",
         "response": dict(response, status="completed", output=[item], usage=usage)}])


# ---- Gemini: generateContent, streamed or not ----------------------------------------------------------

def gemini(http, rest):
    action = rest.partition("?")[0].rpartition(":")[2]
    if http.line[0] != "POST" or not action.endswith("enerateContent"):
        return http.answer('{"totalTokens": 10}', more=["Content-Type: application/json"])
    asked = json.loads(http.body)
    at = sum(1 for content in asked["contents"] for part in content["parts"] if "functionResponse" in part)
    names = [f["name"] for t in asked.get("tools", []) for f in t.get("functionDeclarations", [])]
    todo, part = steps(), {"text": DONE}
    if "run_shell_command" in names and at < len(todo):
        part = {"functionCall": {"name": "run_shell_command",
                                 "args": {"command": todo[at], "description": "step %d" % at}}}
    answer = json.dumps({
        "candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 10, "totalTokenCount": 20}})
    if action == "generateContent":
        return http.answer(answer, more=["Content-Type: application/json"])
    http.answer("data: %s\n\n" % answer, more=["Content-Type: text/event-stream"])


# ---- For an agent that is a script --------------------------------------------------------------------

def following(http, rest):
    """The next command as plain text; nothing when all are done."""
    todo, at = steps(), int(http.headers.get("x-step", 0))
    http.answer(todo[at] if at < len(todo) else "")


routes = [("/v1/next", following), ("/v1/messages", messages), ("/v1/responses", responses), ("/responses", responses),
          ("/v1beta/models/", gemini)]
