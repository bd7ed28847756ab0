class_name StreamerCursorStore
extends RefCounted
## Keeps cursors and waiting marks in a file of the player's folder. Written when the app
## pauses or ends, and at most every few seconds; after a crash some notifications arrive
## once more, and none is lost. Extend it to keep them elsewhere.

const SECTION := "streamer"
const WRITE_EVERY_MS := 5000

var _path: String
var _file := ConfigFile.new()
var _is_changed := false
var _written_at_ms := 0


func _init(path := "user://streamer.cfg") -> void:
	_path = path
	# A file that is missing or cannot be read is an empty one.
	_file.load(path)


## Return what was saved under a name, "" if nothing was.
func load_value(name: String) -> String:
	var value: Variant = _file.get_value(SECTION, name.uri_encode(), "")
	return value if value is String else ""


## Replace what was saved; "" removes it.
func save_value(name: String, value: String) -> void:
	_file.set_value(SECTION, name.uri_encode(), value if value != "" else null)
	_is_changed = true
	if Time.get_ticks_msec() - _written_at_ms >= WRITE_EVERY_MS:
		flush()


## Write what is delayed.
func flush() -> void:
	if not _is_changed:
		return
	_is_changed = false
	_written_at_ms = Time.get_ticks_msec()
	if _file.save(_path) != OK:
		push_warning("streamer: cannot write " + _path)
