"""Asks a node what Grafana asks of Loki, in its order, and judges the answers as its data source does.

Health check, label browser, an Explore log query with its histogram and its statistics, a live tail over a WebSocket
while records come in, then what Logs Drilldown asks: volume, labels, fields, values of a field, patterns. Usage: play.py URL
"""

import asyncio
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import websockets

URL = sys.argv[1]
CATEGORIZE = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}
SECOND = 10**9
LEVELS = ["info", "info", "info", "warn", "error"]
COUNT = 200


def ask(path, parameters, headers=None, form=False):
    encoded = urllib.parse.urlencode(parameters, doseq=True)
    url, data = f"{URL}/loki/api/v1/{path}", None
    if form:
        data = encoded.encode()
    else:
        url += f"?{encoded}"
    with urllib.request.urlopen(urllib.request.Request(url, data, headers or {}), timeout=30) as answer:
        assert answer.headers.get_content_type() == "application/json", answer.headers
        return json.load(answer)


def refused(path, parameters):
    try:
        ask(path, parameters)
    except urllib.error.HTTPError as error:
        assert error.headers.get_content_type() == "text/plain", error.headers
        return error.code, error.read().decode()
    raise AssertionError(f"{path} {parameters} was not refused")


def push(records):
    """Records are (time, level, line)."""
    values = [[str(at), line, {"trace_id": f"t{number}"}] for number, (at, _, line) in enumerate(records)]
    stream = {"stream": {"app": "checkout", "cluster": "eu"}, "values": values}
    body = json.dumps({"streams": [stream]}).encode()
    request = urllib.request.Request(f"{URL}/loki/api/v1/push", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 204, answer.status


def line(number, level):
    return json.dumps({"level": level, "msg": f"order {number} handled", "took": f"{number}ms", "status": 200 + number % 3})


def health():
    data = ask("query", {"query": "vector(1)+vector(1)", "time": time.time_ns(), "direction": "backward"})["data"]
    assert data["resultType"] == "vector" and data["result"][0]["value"][1] == "2", data


def label_browser(span):
    assert {"app", "cluster", "service_name"} <= set(ask("labels", span)["data"])
    selector = {"query": '{app="checkout"}'}
    assert ask("label/cluster/values", {**span, **selector})["data"] == ["eu"]
    series = ask("series", {**span, "match[]": '{app="checkout"}'}, form=True)["data"]
    assert [labels["cluster"] for labels in series] == ["eu"], series
    assert ask("series", {**span, "match[]": "{}"})["data"]


def explore(span):
    stats = ask("index/stats", {**span, "query": '{app="checkout"}'})
    assert stats["entries"] == COUNT and stats["streams"] == 1 and stats["bytes"] > 0, stats
    wanted = {**span, "query": '{app="checkout"} |= "order"', "limit": 50, "direction": "backward", "step": "1000ms"}
    data = ask("query_range", wanted, CATEGORIZE)["data"]
    assert data["resultType"] == "streams" and data["encodingFlags"] == ["categorize-labels"]
    lines = 0
    for stream in data["result"]:
        assert all(isinstance(value, str) for value in stream["stream"].values())
        for value in stream["values"]:
            assert len(value) == 3 and isinstance(value[0], str) and isinstance(value[1], str), value
            assert value[2]["structuredMetadata"]["detected_level"] in LEVELS, value
            assert set(value[2]) <= {"structuredMetadata", "parsed"}, value
            lines += 1
    assert lines == 50
    summary = data["stats"]["summary"]
    assert summary["totalEntriesReturned"] == 50 and summary["totalLinesProcessed"] >= 50, summary
    folded = ask("query_range", wanted)["data"]
    assert all(len(value) == 2 for stream in folded["result"] for value in stream["values"])
    assert all("trace_id" in stream["stream"] for stream in folded["result"])
    code, text = refused("query_range", {**span, "query": '{app="checkout"'})
    assert code == 400 and text.startswith("parse error at line 1, col "), (code, text)


def histogram(span):
    # As Explore draws it: bars of records per level.
    query = 'sum by (level, detected_level) (count_over_time({app="checkout"} |= "order"[10s]))'
    data = ask("query_range", {**span, "query": query, "step": "10000ms"}, form=True)["data"]
    assert data["resultType"] == "matrix"
    bars = {series["metric"]["detected_level"]: series["values"] for series in data["result"]}
    assert set(bars) == set(LEVELS), bars
    assert sum(int(value) for values in bars.values() for _, value in values) == COUNT, bars


async def live_tail():
    query = urllib.parse.urlencode({"query": '{app="checkout"} |= "live"', "limit": 100})
    address = f"{URL.replace('http', 'ws', 1)}/loki/api/v1/tail?{query}"
    wanted, found = [f"live record {number}" for number in range(20)], []
    async with websockets.connect(address, additional_headers=CATEGORIZE) as socket:
        for text in wanted:
            push([(time.time_ns(), "info", text)])
        while len(found) < len(wanted):
            frame = json.loads(await asyncio.wait_for(socket.recv(), 30))
            assert frame["dropped_entries"] == [] and frame["encodingFlags"] == ["categorize-labels"], frame
            found += [value[1] for stream in frame["streams"] for value in stream["values"]]
    assert found == wanted, found


def drilldown(span):
    limits = ask("drilldown-limits", {})
    assert limits["pattern_ingester_enabled"] and limits["limits"]["volume_enabled"], limits
    volume = ask("index/volume", {**span, "query": '{app=~".+"}', "targetLabels": "app", "limit": 5000})["data"]
    assert volume["resultType"] == "vector" and volume["result"][0]["metric"]["app"] == "checkout", volume
    ranged = ask("index/volume_range", {**span, "query": '{app="checkout"}', "step": "30s"})["data"]
    total = sum(int(value) for _, value in ranged["result"][0]["values"])
    assert total == int(volume["result"][0]["value"][1]) > 0, (ranged, volume)
    labels = {label["label"]: label["cardinality"] for label in ask("detected_labels", span)["detectedLabels"]}
    assert labels["cluster"] == 1, labels
    query = {**span, "query": '{app="checkout"} |= "order"'}
    fields = {field["label"]: field for field in ask("detected_fields", {**query, "line_limit": 1000})["fields"]}
    assert fields["took"]["type"] == "duration" and fields["took"]["parsers"] == ["json"], fields
    assert fields["status"] == {"label": "status", "type": "int", "cardinality": 3, "parsers": ["json"], "jsonPath": ["status"]}
    assert fields["detected_level"]["parsers"] is None, fields
    values = ask("detected_field/status/values", {**query, "line_limit": 1000})["values"]
    assert values == ["200", "201", "202"], values
    patterns = ask("patterns", {**span, "query": '{app="checkout"}', "step": "10s"})
    assert patterns["status"] == "success", patterns
    orders = [found for found in patterns["data"] if "handled" in found["pattern"]]
    assert {found["level"] for found in orders} == set(LEVELS), orders
    assert all("<_>" in found["pattern"] for found in orders), orders
    assert sum(count for found in orders for _, count in found["samples"]) == COUNT, orders


def main():
    now = time.time_ns()
    span = {"start": now - 300 * SECOND, "end": now + 60 * SECOND}
    health()
    push([(now - (COUNT - n) * SECOND, LEVELS[n % 5], line(n, LEVELS[n % 5])) for n in range(COUNT)])
    label_browser(span)
    explore(span)
    histogram(span)
    drilldown(span)
    asyncio.run(live_tail())
    print("grafana: health, labels, explore, histogram, drilldown and tail are answered as Loki answers them")


main()
