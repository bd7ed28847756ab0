extends Control
## A bell with the number of unread notifications, and the inbox below it.

## The address of the server.
@export var url := "http://127.0.0.1:8080"
## A player's token. A game asks its backend for one instead.
@export var token := ""

@onready var _bell: Label = $Column/Bell
@onready var _list: ItemList = $Column/List
@onready var _streamer: StreamerClient = $Streamer


func _ready() -> void:
	_streamer.notification_received.connect(_show_on_top)
	_streamer.removed.connect(_on_removed)
	_streamer.gap_found.connect(_on_gap_found)
	_streamer.unread_changed.connect(func(unread: int) -> void: _bell.text = "Bell: %d" % unread)
	_streamer.ended.connect(
		func(_code: int, detail: String) -> void: _bell.text = "Ended: " + detail
	)
	_streamer.on("friend_request", _on_friend_request)
	_streamer.open(url, func() -> String: return token)
	# What is there already. What arrives meanwhile may be on the page as well.
	var result := await _streamer.read_page()
	if result.ok:
		for one: StreamerNotification in result.value.notifications:
			_show(one)


func _show_on_top(one: StreamerNotification) -> void:
	_show(one)
	_list.move_item(_list.item_count - 1, 0)


func _show(one: StreamerNotification) -> void:
	_on_removed(one.id, "")
	var index := _list.add_item(one.title if one.title != "" else one.type)
	_list.set_item_metadata(index, one.id)
	_list.set_item_tooltip(index, one.body)


func _on_removed(id: String, _replaced_by: String) -> void:
	for index in range(_list.item_count - 1, -1, -1):
		if _list.get_item_metadata(index) == id:
			_list.remove_item(index)


func _on_gap_found(gap: StreamerGap) -> void:
	var result := await _streamer.fill_gap(gap)
	if result.ok:
		for one: StreamerNotification in result.value:
			_show_on_top(one)


func _on_friend_request(one: StreamerNotification) -> void:
	if one.data is Dictionary:
		print(one.data.get("from"), " wants to be friends")


func _on_list_item_activated(index: int) -> void:
	_streamer.mark_read([_list.get_item_metadata(index)])


func _on_all_read_pressed() -> void:
	_streamer.mark_all_read()
