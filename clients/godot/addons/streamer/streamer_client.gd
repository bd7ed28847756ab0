class_name StreamerClient
extends Node
## A player's notifications, live and durable: across lost connections, restarts of the
## server, tokens that end, and sleep.
##
## The addon makes one available in all scenes, as [code]Streamer[/code]. All signals come
## from its [method Node._process].

## A notification, once each, in order.
signal notification_received(notification: StreamerNotification)
## A notification has ended: take it off the screen. It was withdrawn, or replaced by the
## one that follows.
signal removed(id: String, replaced_by: String)
## Notifications are missing: see [method fill_gap].
signal gap_found(gap: StreamerGap)
## Something was marked, on any device: ids, up_to or all, and read. With none of the first
## three it is unknown which; read the page again.
signal read_changed(change: Dictionary)
## The number of unread notifications is another one.
signal unread_changed(unread: int)
signal state_changed(state: Stream.State)
## The server refused the stream for good. It does not reconnect.
signal ended(code: int, detail: String)
## An error that ends nothing: of the token source (repeated with back-off), or of a mark
## that the server refused (dropped).
signal failed(problem: String)

const Clock := preload("clock.gd")
const Http := preload("http.gd")
const MarkQueue := preload("mark_queue.gd")
const Rest := preload("rest.gd")
const Socket := preload("socket.gd")
const Stream := preload("notification_stream.gd")
const TokenKeeper := preload("token_keeper.gd")
const Wire := preload("wire.gd")

var _stream: Stream
var _tokens: TokenKeeper
var _rest: Rest
var _marks: MarkQueue
var _store: StreamerCursorStore
var _by_type := {}
var _has_player := false


## Connect, and stay connected, across scenes. Returns at once.
##
## [param url] is the server, such as https://push.game.example. [param token_source] returns
## a player token of your backend; it may await. Further [param options]: token,
## start_cursor ("earliest"), player, topics, device, auto_commit, messages_per_tick, store
## (a [StreamerCursorStore]), and for tests clock, http and open_socket.
func open(url: String, token_source := Callable(), options := {}) -> Error:
	var address := url.rstrip("/")
	var is_url := address.begins_with("https://") or address.begins_with("http://")
	if not is_url or (token_source.is_null() and options.get("token", "") == ""):
		push_error("streamer: open() needs an http(s) URL, and a token or a token source")
		return ERR_INVALID_PARAMETER
	close()
	var clock: Clock = options.get("clock", Clock.new())
	_store = options.get("store", StreamerCursorStore.new())
	_tokens = TokenKeeper.new(options.get("token", ""), token_source, clock)
	_tokens.failed.connect(failed.emit)
	var http: Node = options.get("http", Http.new())
	add_child(http)
	_rest = Rest.new(address + "/v1/", http, _tokens, clock)
	_marks = MarkQueue.new(_rest, clock, _store)
	_marks.refused.connect(failed.emit)
	var open_socket: Callable = options.get(
		"open_socket", func(at: String) -> Socket: return Socket.new(at)
	)
	var stream_url := "ws" + address.substr(4) + "/v1/stream"
	_stream = Stream.new(stream_url, options, _tokens, clock, _store, open_socket)
	_stream.player_changed.connect(_on_player_changed.bind(address))
	_stream.notified.connect(_on_notified)
	_stream.state_changed.connect(_on_state_changed)
	_stream.removed.connect(removed.emit)
	_stream.gap_found.connect(gap_found.emit)
	_stream.read_changed.connect(read_changed.emit)
	_stream.unread_changed.connect(unread_changed.emit)
	_stream.ended.connect(ended.emit)
	_stream.start()
	return OK


## Disconnect, and forget the player: log out. The cursor stays stored.
func close() -> void:
	if _stream == null:
		return
	_stream.stop()
	_store.flush()
	_rest.abort("the client is closed")
	_marks.close()
	_has_player = false
	for child in get_children():
		child.queue_free()
	_stream = null


## Return the number of unread notifications; negative while it is unknown.
func unread() -> int:
	return _stream.unread() if _stream != null else Wire.NONE


func state() -> Stream.State:
	return _stream.state() if _stream != null else Stream.State.STOPPED


## Return the point up to which notifications were received; "" while it is unknown.
func cursor() -> String:
	return _stream.cursor if _stream != null else ""


## Return the number of marks and acknowledgements that the server has not confirmed.
func pending_marks() -> int:
	return _marks.size() if _stream != null else 0


## Connect again after the stream has ended, for example when the player has logged in.
func restart() -> void:
	if _stream != null:
		_stream.start()


## Call a handler for notifications of one type. It gets the notification.
func on(type: String, handler: Callable) -> void:
	if not _by_type.has(type):
		_by_type[type] = []
	_by_type[type].append(handler)


func off(type: String, handler: Callable) -> void:
	_by_type.get(type, []).erase(handler)


## The app runs again, or the network is back: check the connection at once, and cut a wait
## short. The delay that a server asked for is kept. May be called at any rate.
func wake() -> void:
	if _stream == null:
		return
	_tokens.hurry()
	_marks.hurry()
	_stream.wake()


## Tell what the platform says of the network, if your game knows it.
func set_network(is_reachable: bool) -> void:
	if _stream == null:
		return
	if is_reachable:
		_tokens.hurry()
		_marks.hurry()
	_stream.set_network(is_reachable)


## Store a cursor by hand, without [code]auto_commit[/code].
func commit(to: String) -> void:
	if _stream != null:
		_stream.commit(to)


## Mark as read, now or when the server can be reached: also after a restart of the game.
## Idempotent. There is no need to await it; its value is the number of unread then.
func mark_read(ids: PackedStringArray) -> StreamerResult:
	return await _confirmed(
		func() -> RefCounted: return _marks.mark("read", ids), not ids.is_empty()
	)


## Remove read marks. Otherwise as [method mark_read].
func mark_unread(ids: PackedStringArray) -> StreamerResult:
	return await _confirmed(
		func() -> RefCounted: return _marks.mark("unread", ids), not ids.is_empty()
	)


## Mark everything up to a cursor or an id, inclusive. Otherwise as [method mark_read].
func mark_read_up_to(to: String) -> StreamerResult:
	return await _confirmed(func() -> RefCounted: return _marks.read_up_to(to), to != "")


## Mark everything as read; offline, everything that has arrived.
func mark_all_read() -> StreamerResult:
	# What arrives before the server can be reached has not been seen.
	if state() == Stream.State.OPEN or not _has_arrived():
		return await _confirmed(func() -> RefCounted: return _marks.read_all(), true)
	return await mark_read_up_to(cursor())


## Confirm everything up to a cursor or an id, by default that of the stream, for the
## receipts of the sender. Otherwise as [method mark_read].
func ack(to := "") -> StreamerResult:
	var point := to
	if to == "" and _has_arrived():
		point = cursor()
	return await _confirmed(func() -> RefCounted: return _marks.ack(point), point != "")


## Return a page, as a [StreamerPage] in the value of the result.
##
## [param query] may have limit, before, after, topic, types, priorities, unread and order,
## as the protocol describes them; types and priorities are arrays.
func read_page(query := {}) -> StreamerResult:
	var path := "players/me/notifications" + query_of(query)
	return _readable(await _request(HTTPClient.METHOD_GET, path), StreamerPage.read)


## Return a [StreamerNotification]; status 404 if the inbox does not have it.
func get_notification(id: String) -> StreamerResult:
	var path := "players/me/notifications/" + id.uri_encode()
	return _readable(await _request(HTTPClient.METHOD_GET, path), StreamerNotification.read)


## Delete a notification from the inbox, on all devices. Idempotent.
func delete_notification(id: String) -> StreamerResult:
	return await _request(HTTPClient.METHOD_DELETE, "players/me/notifications/" + id.uri_encode())


## Subscribe the player to a topic that its token allows. Idempotent.
func join_topic(topic: String) -> StreamerResult:
	return await _request(HTTPClient.METHOD_PUT, "players/me/topics/" + _topic_path(topic))


## Unsubscribe the player from a topic; its notifications are gone. Idempotent.
func leave_topic(topic: String) -> StreamerResult:
	return await _request(HTTPClient.METHOD_DELETE, "players/me/topics/" + _topic_path(topic))


## Return the notifications that a gap has left out and that are still kept, as an array in
## the value of the result, oldest first: without those that the stream has delivered, and
## at most [param max_count], the newest ones. The stream does not deliver them again.
##
## Until it has succeeded no cursor is stored by itself: after a restart of the game the gap
## is told again. If it fails, call it again with the same gap.
func fill_gap(gap: StreamerGap, max_count := 1000) -> StreamerResult:
	if _stream == null:
		return StreamerResult.failed("the client is closed")
	_stream.begin_fill(gap)
	var found: Array[StreamerNotification] = []
	var query := {"limit": 100}
	if gap.topic != "":
		query["topic"] = gap.topic
	# In another inbox than before, the old cursor means nothing.
	if gap.is_from_valid():
		query["after"] = gap.from
	while true:
		var result := await read_page(query)
		if not result.ok:
			return result
		var page: StreamerPage = result.value
		for one in page.notifications:
			if found.size() < max_count and not _stream.seen.has(one.id):
				_stream.seen.mark_delivered(one.id)
				found.append(one)
		query["before"] = page.next
		if page.next == "" or found.size() >= max_count:
			found.reverse()
			_stream.end_fill(gap)
			result.value = found
			return result
	return null


## Return the parameters of a page, with a question mark.
static func query_of(query: Dictionary) -> String:
	var parts := PackedStringArray()
	for name: String in ["limit", "before", "after", "topic", "unread", "order"]:
		if query.has(name):
			parts.append("%s=%s" % [name, str(query[name]).uri_encode()])
	for type: String in query.get("types", []):
		# A comma separates values.
		parts.append("type=" + type.replace(",", "\\,").uri_encode())
	for priority: String in query.get("priorities", []):
		parts.append("priority=" + priority.uri_encode())
	return "?" + "&".join(parts) if not parts.is_empty() else ""


func _process(_delta: float) -> void:
	if _stream == null:
		return
	_tokens.tick()
	_stream.tick()
	# A handler may have closed the client.
	if _stream != null:
		_marks.tick()
	if _stream != null:
		_rest.tick()


func _notification(what: int) -> void:
	match what:
		NOTIFICATION_APPLICATION_PAUSED, NOTIFICATION_WM_CLOSE_REQUEST:
			# The system may end a paused app without another word.
			if _stream != null:
				_store.flush()
		NOTIFICATION_APPLICATION_RESUMED, NOTIFICATION_APPLICATION_FOCUS_IN:
			wake()


func _exit_tree() -> void:
	close()


func _request(method: HTTPClient.Method, path: String) -> StreamerResult:
	if _stream == null:
		return StreamerResult.failed("the client is closed")
	return await _rest.start(method, path).finished


## Queue a mark, and wait until the server has confirmed it.
func _confirmed(queue: Callable, is_valid: bool) -> StreamerResult:
	if _stream == null:
		return StreamerResult.failed("the client is closed")
	if not is_valid:
		return StreamerResult.failed("there is nothing to mark")
	return await queue.call().finished


## Whether the cursor is a point in the inbox, and not only where to begin.
func _has_arrived() -> bool:
	return not cursor() in ["", "earliest"]


static func _readable(result: StreamerResult, read: Callable) -> StreamerResult:
	if result.ok:
		result.value = read.call(result.value)
		if result.value == null:
			result.ok = false
			result.detail = "unreadable response"
	return result


static func _topic_path(topic: String) -> String:
	return topic.uri_encode().replace("%2F", "/")


func _on_player_changed(player: String, address: String) -> void:
	# What was asked for one player is not for another one.
	if _has_player:
		_rest.abort("the player is another one")
	_has_player = true
	_marks.open("marks %s %s" % [address, player])


func _on_notified(one: StreamerNotification) -> void:
	notification_received.emit(one)
	for handler: Callable in _by_type.get(one.type, []).duplicate():
		handler.call(one)


func _on_state_changed(state_now: Stream.State) -> void:
	if state_now == Stream.State.OPEN:
		_marks.hurry()
	state_changed.emit(state_now)
