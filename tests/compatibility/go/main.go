// Readers of a stream with Go's WebSocket libraries, with their defaults.
//
// Arguments: the library, the URL, the token, and the largest message that it accepts
// (empty: its default). Prints the type of each message up to the first notification,
// then the size of that or the error.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
)

type reader func() ([]byte, error)

func openCoder(url string, header http.Header, limit int64) (reader, func(), error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	// It offers permessage-deflate.
	options := coder.DialOptions{HTTPHeader: header, CompressionMode: coder.CompressionContextTakeover}
	socket, _, err := coder.Dial(ctx, url, &options)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	if limit > 0 {
		socket.SetReadLimit(limit)
	}
	read := func() ([]byte, error) {
		_, data, err := socket.Read(ctx)
		return data, err
	}
	return read, func() { socket.Close(coder.StatusNormalClosure, ""); cancel() }, nil
}

func openGorilla(url string, header http.Header, limit int64) (reader, func(), error) {
	dialer := gorilla.Dialer{EnableCompression: true}
	socket, _, err := dialer.Dial(url, header)
	if err != nil {
		return nil, nil, err
	}
	if limit > 0 {
		socket.SetReadLimit(limit)
	}
	socket.SetReadDeadline(time.Now().Add(20 * time.Second))
	read := func() ([]byte, error) {
		_, data, err := socket.ReadMessage()
		return data, err
	}
	return read, func() { socket.Close() }, nil
}

func main() {
	library, url, token := os.Args[1], os.Args[2], os.Args[3]
	limit, _ := strconv.ParseInt(os.Args[4], 10, 64)
	open := map[string]func(string, http.Header, int64) (reader, func(), error){
		"coder": openCoder, "gorilla": openGorilla,
	}[library]
	read, closeSocket, err := open(url, http.Header{"Authorization": {"Bearer " + token}}, limit)
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
	defer closeSocket()
	for {
		data, err := read()
		if err != nil {
			fmt.Println("error:", err)
			return
		}
		var message struct{ Type string }
		json.Unmarshal(data, &message)
		fmt.Println(message.Type)
		if message.Type == "notification" {
			fmt.Println(len(data))
			return
		}
	}
}
