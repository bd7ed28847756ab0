extends RefCounted
## Marks and acknowledgements on their way to the server, in order, kept over outages and
## restarts of the game. All of them are idempotent: one whose response was lost is sent
## again. One request at a time; the next ids join those that wait.

## The server refuses an operation for good; it is dropped.
signal refused(problem: String)

const Clock := preload("clock.gd")
const JsonReader := preload("json_reader.gd")
const Reconnect := preload("reconnect.gd")
const Rest := preload("rest.gd")

## Ids that the server accepts in one mark.
const IDS_MAX := 1000
## More operations than a player makes; beyond it the oldest is dropped.
const OPERATIONS_MAX := 200
const RETRY_MAX_S := 60.0
const HOPELESS_MAX_S := 600.0


## One mark or acknowledgement.
class Operation:
	extends RefCounted
	signal finished(result: StreamerResult)

	var action := ""
	var body := {}

	func _init(what: String, content: Dictionary) -> void:
		action = what
		body = content


var _rest: Rest
var _clock: Clock
var _store: StreamerCursorStore
var _operations: Array[Operation] = []
var _sending: Rest.Call
var _name := ""
var _not_before_s := -INF
var _failures := 0


func _init(rest: Rest, clock: Clock, store: StreamerCursorStore) -> void:
	_rest = rest
	_clock = clock
	_store = store


func size() -> int:
	return _operations.size()


## Continue with what was saved under a name; what is queued for another is left there.
func open(name: String) -> void:
	if name == _name:
		return
	# Operations before the player was known belong to this one.
	var early := _operations.duplicate() if _name == "" else []
	_name = name
	_operations.clear()
	_sending = null
	_load_saved(_store.load_value(name))
	if not early.is_empty():
		_operations.append_array(early)
		_save()


## Mark ids as read or unread, after what waits already.
func mark(action: String, ids: PackedStringArray) -> Operation:
	var operation: Operation = null
	var last: Operation = _operations.back() if _operations.size() > _first_waiting() else null
	if last != null and last.action == action and last.body.has("ids"):
		var had: Array = last.body["ids"]
		if had.size() + ids.size() <= IDS_MAX:
			had.append_array(ids)
			_save()
			return last
	for at in range(0, ids.size(), IDS_MAX):
		var part := Array(ids.slice(at, at + IDS_MAX))
		operation = _add(Operation.new(action, {"ids": part}))
	return operation


func read_up_to(cursor: String) -> Operation:
	return _add(Operation.new("read", {"up_to": cursor}))


func read_all() -> Operation:
	return _add(Operation.new("read", {"all": true}))


func ack(cursor: String) -> Operation:
	# A later one includes those before.
	for at in range(_operations.size() - 1, _first_waiting() - 1, -1):
		if _operations[at].action == "ack":
			var earlier := _operations[at]
			_operations.remove_at(at)
			earlier.body = {"cursor": cursor}
			return _add(earlier)
	return _add(Operation.new("ack", {"cursor": cursor}))


## The network or the app is back: do not wait for the next attempt.
func hurry() -> void:
	_not_before_s = minf(_not_before_s, _clock.now_s() + Reconnect.FIRST_S * _clock.random())


## Stop. What waits is sent in the next run of the game.
func close() -> void:
	var waiting := _operations.duplicate()
	_operations.clear()
	_sending = null
	for one: Operation in waiting:
		one.finished.emit(StreamerResult.failed("the client is closed; the mark is kept", true))


func tick() -> void:
	if _sending != null and _sending.result != null:
		_take(_sending.result)
	if _sending != null or _operations.is_empty() or _clock.now_s() < _not_before_s:
		return
	var first := _operations[0]
	_sending = _rest.start(
		HTTPClient.METHOD_POST,
		"players/me/notifications/" + first.action,
		JSON.stringify(first.body),
		1
	)


func _first_waiting() -> int:
	return 0 if _sending == null else 1


func _take(result: StreamerResult) -> void:
	_sending = null
	# 401: another token may come.
	var is_client_error := result.status >= 400 and result.status < 500 and result.status != 401
	if not result.ok and not (is_client_error and not result.is_temporary):
		# A hopeless token stays so for long, and the source is asked each time.
		var max_s := HOPELESS_MAX_S if result.status == 401 else RETRY_MAX_S
		var jitter_s := Reconnect.full_jitter_s(_failures, _clock.random(), max_s)
		_not_before_s = _clock.now_s() + result.retry_after_s + Reconnect.FIRST_S + jitter_s
		_failures += 1
		return
	if result.ok:
		_failures = 0
		var value: Dictionary = result.value if result.value is Dictionary else {}
		result.value = value.get("unread", 0)
	_drop(0, result)


func _add(operation: Operation) -> Operation:
	_operations.append(operation)
	_save()
	if _operations.size() > OPERATIONS_MAX:
		_drop(_first_waiting(), StreamerResult.failed("too many marks wait; the oldest is dropped"))
	return operation


func _drop(index: int, result: StreamerResult) -> void:
	var dropped := _operations[index]
	_operations.remove_at(index)
	_save()
	dropped.finished.emit(result)
	if not result.ok:
		refused.emit(result.detail)


func _save() -> void:
	if _name == "":
		return
	var saved := []
	for one in _operations:
		saved.append({"action": one.action, "body": one.body})
	_store.save_value(_name, JSON.stringify(saved) if not saved.is_empty() else "")


func _load_saved(text: String) -> void:
	# Somebody else may have written there. A lost mark does less harm than a client that
	# does not start.
	var saved: Variant = JsonReader.new().parse(text)
	if saved is not Array:
		return
	for one: Variant in saved:
		if one is not Dictionary:
			continue
		var is_known: bool = one.get("action") in ["read", "unread", "ack"]
		if is_known and one.get("body") is Dictionary:
			_operations.append(Operation.new(one["action"], one["body"]))
