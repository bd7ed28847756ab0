extends RefCounted
## What surrounds a client in tests: a clock, sockets, HTTP and a store.


## A clock that a test moves.
class FakeClock:
	extends "res://addons/streamer/clock.gd"
	var at_s := 0.0
	var unix_at_s := 1800000000.0
	var fraction := 0.5

	func now_s() -> float:
		return at_s

	func unix_s() -> float:
		return unix_at_s

	func random() -> float:
		return fraction

	func pass_s(seconds: float) -> void:
		at_s += seconds
		unix_at_s += seconds


class FakeSocket:
	extends RefCounted
	const Socket := preload("res://addons/streamer/socket.gd")
	var url := ""
	var text := ""
	var code := 0
	var sent: Array[String] = []
	var is_gone := false
	var is_aborted := false
	var events := []

	func take() -> Socket.Kind:
		if events.is_empty():
			return Socket.Kind.NONE
		var event: Array = events.pop_front()
		text = event[1]
		code = event[2]
		return event[0]

	func send(message: String) -> void:
		sent.append(message)

	func close() -> void:
		is_gone = true

	func is_closed() -> bool:
		return true

	func abort() -> void:
		is_gone = true
		is_aborted = true

	func accept() -> void:
		events.append([Socket.Kind.OPENED, "", 0])

	func say(message: String) -> void:
		events.append([Socket.Kind.TEXT, message, 0])

	func end(with: int, reason := "") -> void:
		events.append([Socket.Kind.CLOSED, reason, with])


class FakeExchange:
	extends RefCounted
	var is_done := false
	var status := 0
	var body := ""
	var retry_after := ""
	var is_aborted := false
	var method := 0
	var url := ""
	var token := ""
	var request_body := ""

	func abort() -> void:
		is_aborted = true

	func answer(with: int, content := "", delay := "") -> void:
		status = with
		body = content
		retry_after = delay
		is_done = true


class FakeHttp:
	extends Node
	var exchanges: Array[FakeExchange] = []

	func start(method: int, url: String, token: String, body: String) -> FakeExchange:
		var exchange := FakeExchange.new()
		exchange.method = method
		exchange.url = url
		exchange.token = token
		exchange.request_body = body
		exchanges.append(exchange)
		return exchange

	func last() -> FakeExchange:
		return exchanges.back()


class MemoryStore:
	extends StreamerCursorStore
	var values := {}

	func load_value(name: String) -> String:
		return values.get(name, "")

	func save_value(name: String, value: String) -> void:
		values[name] = value

	func flush() -> void:
		pass
