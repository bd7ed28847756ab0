extends RefCounted
## The ids of the last notifications, with the connection that delivered them. What an
## earlier connection delivered is a repeat. Within one connection nothing is dropped:
## there the server decides.

## Room for the replays (500 each) of several audiences.
const IDS_MAX := 2048
const PAGE := -1

# A dictionary keeps the order in which its keys came.
var _connections := {}
var _connection := 0
var _ids_max: int


func _init(ids_max := IDS_MAX) -> void:
	_ids_max = ids_max


func begin_connection() -> void:
	_connection += 1


func clear() -> void:
	_connections.clear()


func has(id: String) -> bool:
	return _connections.has(id)


## Return whether an earlier connection delivered it; remember nothing.
func was_delivered_before(id: String) -> bool:
	return _connections.get(id, _connection) != _connection


## Remember an id; return whether an earlier connection delivered it.
func is_repeat(id: String) -> bool:
	if _connections.has(id):
		return _connections[id] != _connection
	_add(id, _connection)
	return false


## Note that the application has got it from a page: on a stream it is a repeat.
func mark_delivered(id: String) -> void:
	if not _connections.has(id):
		_add(id, PAGE)


func _add(id: String, connection: int) -> void:
	_connections[id] = connection
	if _connections.size() > _ids_max:
		for oldest: String in _connections:
			_connections.erase(oldest)
			break
