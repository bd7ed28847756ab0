extends Node
## The driver of the conformance suite: commands from the page, events as printed lines.
## Uses the client as an application does.

const Clock := preload("res://addons/streamer/clock.gd")
const Stream := preload("res://addons/streamer/notification_stream.gd")


## Time that runs faster, and can be set ahead as sleep does.
class ScaledClock:
	extends Clock
	var scale := 1.0
	var skipped_s := 0.0
	var start_s := Time.get_ticks_usec() / 1e6
	var start_unix_s := Time.get_unix_time_from_system()
	var fraction: Variant = null

	func now_s() -> float:
		return (super() - start_s) / scale + skipped_s

	func unix_s() -> float:
		return start_unix_s + now_s()

	func random() -> float:
		return super() if fraction == null else float(fraction)


class WatchedStore:
	extends StreamerCursorStore
	var cursor: Variant = null

	func load_value(_name: String) -> String:
		return ""

	func save_value(name: String, value: String) -> void:
		if name.begins_with("cursor "):
			cursor = value

	func flush() -> void:
		pass


signal token_came(token: String)

var client: StreamerClient
var clock: ScaledClock
var store: WatchedStore
var told_cursor: Variant = null
var told_unread := -1


func _ready() -> void:
	# Without "pause": a browser reads WebSockets whether or not anybody takes the messages.
	say(
		"ready",
		{
			"protocol": 1,
			"client": "Godot",
			"transports": ["websocket"],
			"capabilities":
			[
				"ack",
				"clock",
				"first_message",
				"mark",
				"network",
				"page",
				"queue",
				"random",
				"token_source"
			],
		}
	)


func _process(_delta: float) -> void:
	while true:
		var line: Variant = JavaScriptBridge.eval("window.commands.shift() || null", true)
		if line is not String:
			break
		obey(JSON.parse_string(line))
	if client != null:
		client._process(0.0)
	if client != null and store.cursor != told_cursor:
		tell("moved", {})


func obey(command: Dictionary) -> void:
	match command["cmd"]:
		"connect":
			open(command)
		"close":
			client.free()
			client = null
			say("closed", {})
		"mark":
			answer(command, mark.bind(command))
		"ack":
			answer(command, client.ack.bind(str(command["cursor"])))
		"page":
			answer(command, client.read_page.bind(query_of(command.get("query", {}))))
		"token":
			token_came.emit(command.get("token", ""))
		"sleep":
			clock.skipped_s += command["s"]
		"online":
			client.set_network(true)
		"offline":
			client.set_network(false)
		"state":
			say("result", {"id": int(command["id"]), "ok": true})
		_:
			say("failed", {"error": "no such command"})


func open(command: Dictionary) -> void:
	clock = ScaledClock.new()
	clock.scale = command["scale"]
	clock.fraction = command.get("random")
	store = WatchedStore.new()
	store.cursor = command["cursor"]
	told_cursor = store.cursor
	told_unread = -1
	client = StreamerClient.new()
	add_child(client)
	client.set_process(false)
	client.notification_received.connect(_on_notification)
	client.removed.connect(_on_removed)
	client.gap_found.connect(_on_gap)
	client.read_changed.connect(func(change: Dictionary) -> void: tell("read", change))
	client.unread_changed.connect(_on_unread)
	client.state_changed.connect(_on_state)
	client.ended.connect(
		func(code: int, detail: String) -> void: say("stopped", {"code": code, "reason": detail})
	)
	var options := {"clock": clock, "store": store, "topics": command["topics"]}
	if command["token"] != null:
		options["token"] = command["token"]
	if command["cursor"] != null:
		options["start_cursor"] = command["cursor"]
	var source := want_token if command["token_source"] else Callable()
	client.open(command["url"], source, options)


func want_token() -> String:
	say("token_wanted", {})
	return await token_came


func mark(command: Dictionary) -> StreamerResult:
	if command.has("all"):
		return await client.mark_all_read()
	if command.has("up_to"):
		return await client.mark_read_up_to(command["up_to"])
	return await client.mark_read(PackedStringArray(command["ids"]))


func answer(command: Dictionary, act: Callable) -> void:
	var result: StreamerResult = await act.call()
	var members := {"id": int(command["id"]), "ok": result.ok}
	if not result.ok:
		members["error"] = result.detail
	elif command["cmd"] == "mark":
		members["unread"] = result.value
	elif command["cmd"] == "page":
		members["body"] = page_of(result.value)
	say("result", members)


func tell(event: String, members: Dictionary) -> void:
	told_cursor = members.get("stored", store.cursor)
	told_unread = client.unread()
	members["stored"] = told_cursor
	members["number"] = told_unread if told_unread >= 0 else null
	say(event, members)


func say(event: String, members: Dictionary) -> void:
	var line := {"event": event}
	line.merge(members)
	print(json_of(line))


## Return JSON. [method JSON.stringify] leaves most control characters as they are, and writes
## "\v", which JSON does not have.
func json_of(value: Variant) -> String:
	var text := JSON.stringify(value)
	for code in range(1, 0x20):
		text = text.replace(char(code), "\\u%04x" % code)
	# A "v" after an escaped backslash is a letter. No control character is left to be mistaken.
	text = text.replace("\\\\", char(1)).replace("\\v", "\\u000b")
	return text.replace(char(1), "\\\\")


func _on_notification(one: StreamerNotification) -> void:
	var cursor: Variant = one.cursor if one.cursor != "" else null
	# The client stores the cursor when this has returned.
	var stored: Variant = store.cursor if cursor == null else cursor
	tell("notification", {"notification": object_of(one), "cursor": cursor, "stored": stored})


func _on_removed(id: String, by: String) -> void:
	if by == "":
		tell("withdrawn", {"notification_id": id})
	else:
		tell("replaced", {"notification_id": id, "by": by})


func _on_gap(gap: StreamerGap) -> void:
	var members := {"reason": gap.reason}
	if gap.topic != "":
		members["topic"] = gap.topic
	if gap.everyone:
		members["everyone"] = true
	tell("gap", members)


func _on_unread(unread: int) -> void:
	if unread != told_unread:
		tell("unread", {})


func _on_state(state: Stream.State) -> void:
	if state != Stream.State.ENDED:
		say("status", {"status": str(Stream.State.keys()[state]).to_lower()})


static func query_of(query: Dictionary) -> Dictionary:
	var read := query.duplicate()
	for name: String in {"type": "types", "priority": "priorities"}:
		if read.has(name):
			read[{"type": "types", "priority": "priorities"}[name]] = str(read[name]).split(",")
			read.erase(name)
	return read


static func page_of(page: StreamerPage) -> Dictionary:
	return {
		"notifications": page.notifications.map(object_of),
		"next": page.next if page.next != "" else null,
		"unread": page.unread,
		"cursor": page.cursor,
	}


## Return a notification as the application sees it, in the form of the protocol.
static func object_of(one: StreamerNotification) -> Dictionary:
	var made := {"id": one.id, "created_at": one.created_at}
	for name: String in [
		"type",
		"title",
		"body",
		"source",
		"topic",
		"expires_at",
		"collapse_key",
		"due_at",
		"read_at"
	]:
		if one.get(name) != "":
			made[name] = one.get(name)
	if one.has_data:
		made["data"] = one.data
	if not one.properties.is_empty():
		made["properties"] = one.properties
	if one.priority != "medium":
		made["priority"] = one.priority
	if one.resource_url != "":
		made["resource"] = {"url": one.resource_url}
		if one.resource_etag != "":
			made["resource"]["etag"] = one.resource_etag
	if one.everyone:
		made["everyone"] = true
	return made
