@tool
extends EditorPlugin
## Makes the client available in all scenes, as the autoload [code]Streamer[/code].

const NAME := "Streamer"


func _enable_plugin() -> void:
	add_autoload_singleton(NAME, "res://addons/streamer/streamer_client.gd")


func _disable_plugin() -> void:
	remove_autoload_singleton(NAME)
