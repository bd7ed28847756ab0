extends Node
## The game's own code, for the examples of the README.


func streamer_token() -> String:
	await get_tree().process_frame
	return "eyJ"
