extends Node
## Requests by [HTTPRequest]. Each is a child node for as long as it takes.

const TIMEOUT_S := 15.0


## One request on its way.
class Exchange:
	extends RefCounted
	var is_done := false
	## The HTTP status; 0 without a response.
	var status := 0
	var body := ""
	var retry_after := ""
	var node: HTTPRequest

	func abort() -> void:
		if node != null:
			node.cancel_request()
			node.queue_free()
			node = null


## Begin a request. Returns at once.
func start(method: HTTPClient.Method, url: String, token: String, body: String) -> Exchange:
	var exchange := Exchange.new()
	exchange.node = HTTPRequest.new()
	exchange.node.timeout = TIMEOUT_S
	exchange.node.max_redirects = 0
	add_child(exchange.node)
	exchange.node.request_completed.connect(_finish.bind(exchange))
	var headers := PackedStringArray(["Authorization: Bearer " + token])
	if body != "":
		headers.append("Content-Type: application/json")
	if exchange.node.request(url, headers, method, body) != OK:
		exchange.abort()
		exchange.is_done = true
	return exchange


func _finish(
	_result: int, status: int, headers: PackedStringArray, body: PackedByteArray, exchange: Exchange
) -> void:
	exchange.status = status
	exchange.body = body.get_string_from_utf8()
	for header in headers:
		if header.to_lower().begins_with("retry-after:"):
			exchange.retry_after = header.get_slice(":", 1).strip_edges()
	exchange.is_done = true
	exchange.abort()
