// Command keepalive is an HTTP server whose connections stay open and busy: its goroutines wait for the network all the
// time and never for long. With -client URL it is the load on such a server, to be run as another process.
//
// The server prints {"ready":true,"url":URL} and answers "stats" with {"requests":N}; the client prints {"ready":true}
// when every connection has had its first answer, and answers "stats" with {"requests":N}. Both end on "exit".
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	client := flag.String("client", "", "be the load on the server at this URL")
	connections := flag.Int("connections", 32, "connections the client keeps open")
	pause := flag.Duration("pause", 5*time.Millisecond, "between an answer and the connection's next request")
	flag.Parse()

	var requests atomic.Int64
	if *client == "" {
		serve(&requests)
	} else {
		load(*client, *connections, *pause, &requests)
	}

	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		switch input.Text() {
		case "stats":
			fmt.Printf("{\"requests\":%d}\n", requests.Load())
		case "exit":
			return
		}
	}
}

func serve(requests *atomic.Int64) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	handler := func(response http.ResponseWriter, request *http.Request) {
		requests.Add(1)
		io.WriteString(response, "ok\n")
	}
	go func() { fail(http.Serve(listener, http.HandlerFunc(handler))) }()
	fmt.Printf("{\"ready\":true,\"url\":\"http://%s/\"}\n", listener.Addr())
}

// load keeps each connection open by using it: one client a connection, as a pool would mix them.
func load(url string, connections int, pause time.Duration, requests *atomic.Int64) {
	var first sync.WaitGroup
	first.Add(connections)
	for i := 0; i < connections; i++ {
		go func() {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
			for n := 0; ; n++ {
				response, err := client.Get(url)
				if err != nil {
					fail(err)
				}
				if _, err := io.Copy(io.Discard, response.Body); err != nil {
					fail(err)
				}
				response.Body.Close()
				requests.Add(1)
				if n == 0 {
					first.Done()
				}
				time.Sleep(pause)
			}
		}()
	}
	first.Wait()
	fmt.Println(`{"ready":true}`)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "keepalive:", err)
	os.Exit(1)
}
