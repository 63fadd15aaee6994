package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
)

var (
	never = make(chan int)
	large = make([]byte, 16<<20)
)

// Handler answers, or does not, by the path.
func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/forever", func(http.ResponseWriter, *http.Request) { <-never })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(large) })
	mux.HandleFunc("/body", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	mux.HandleFunc("/part", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "a part")
		w.(http.Flusher).Flush()
		<-never
	})
	return mux
}

var (
	plain, secure, second = server(), server(), server()
	// Who accepts connections, and neither reads nor writes.
	silent = must(net.Listen("tcp", "127.0.0.1:0"))
)

func server() *httptest.Server {
	server := httptest.NewUnstartedServer(handler())
	server.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if secure, ok := conn.(*tls.Conn); ok {
			conn = secure.NetConn()
		}
		small(conn)
		return ctx
	}
	return server
}

// Small has the kernel keep little of what is not read.
func small(conn net.Conn) {
	if err := conn.(*net.TCPConn).SetWriteBuffer(8 << 10); err != nil {
		panic(err)
	}
}

// Dial connects to a server and sends some bytes.
func dial(server *httptest.Server, text string) net.Conn {
	conn := must(net.Dial("tcp", server.Listener.Addr().String()))
	must(io.WriteString(conn, text))
	keep <- conn
	return conn
}

// What has to stay reachable.
var keep = make(chan any, 1<<16)

func transport() *http.Transport {
	return &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err == nil {
				small(conn)
			}
			return conn, err
		},
	}
}

func client() *http.Client { return &http.Client{Transport: transport()} }

// Get begins to get something, and does not read it.
func get(client *http.Client, url string) *http.Response {
	response, err := client.Get(url)
	if err != nil {
		return nil
	}
	keep <- response
	return response
}

// Upload posts what does not end.
func upload(client *http.Client, url string, body io.Reader) {
	if response, err := client.Post(url, "text/plain", body); err == nil {
		keep <- response
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func init() {
	plain.Start()
	secure.StartTLS()
	second.EnableHTTP2 = true
	second.StartTLS()
	go func() {
		for {
			keep <- must(silent.Accept())
		}
	}()
	waits["http-server-idle"] = func() {
		conn := dial(plain, "GET / HTTP/1.1\r\nHost: library\r\n\r\n")
		must(conn.Read(make([]byte, 1<<10)))
	}
	waits["http-server-request"] = func() { dial(plain, "GET / HT") }
	waits["http-server-handshake"] = func() { dial(secure, "") }
	waits["http-server-body"] = func() {
		dial(plain, "POST /body HTTP/1.1\r\nHost: library\r\nContent-Length: 100\r\n\r\na part")
	}
	waits["http-server-watch"] = func() { dial(plain, "GET /forever HTTP/1.1\r\nHost: library\r\n\r\n") }
	waits["http-server-response"] = func() { dial(plain, "GET /large HTTP/1.1\r\nHost: library\r\n\r\n") }
	waits["http-server-shutdown"] = func() {
		server := server()
		server.Start()
		get(client(), server.URL+"/part")
		go func() { _ = server.Config.Shutdown(context.Background()) }()
	}
	waits["http-client-idle"] = func() {
		if response := get(client(), plain.URL); response != nil {
			_ = response.Body.Close()
		}
	}
	waits["http-client-body-open"] = func() { get(client(), plain.URL+"/large") }
	// The same goroutines.
	waits["http-client-write-idle"] = func() {}
	waits["http-client-header"] = func() { go get(client(), plain.URL+"/forever") }
	waits["http-client-body"] = func() {
		if response := get(client(), plain.URL+"/part"); response != nil {
			go func() { _, _ = io.ReadAll(response.Body) }()
		}
	}
	one := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	get(one, plain.URL+"/large")
	waits["http-client-connection"] = func() { go get(one, plain.URL) }
	waits["http-client-write"] = func() { go upload(client(), fmt.Sprintf("http://%s", silent.Addr()), zeros{}) }
	waits["http-client-handshake"] = func() { go get(client(), fmt.Sprintf("https://%s", silent.Addr())) }

	waits["http2-server-flow"] = func() { get(client(), second.URL+"/large") }
	waits["http2-server-connection"] = func() {}
	waits["http2-server-read"] = func() {}
	waits["http2-client-stream"] = func() {}
	waits["http2-client-idle"] = func() {}
	waits["http2-client-header"] = func() { go get(client(), second.URL+"/forever") }
	waits["http2-client-body"] = func() {
		if response := get(client(), second.URL+"/part"); response != nil {
			go func() { _, _ = io.ReadAll(response.Body) }()
		}
	}
	waits["http2-server-body"] = func() {
		body, writer := io.Pipe()
		keep <- writer
		go upload(client(), second.URL+"/body", body)
	}
	waits["http2-client-flow"] = func() { go upload(client(), second.URL+"/forever", zeros{}) }
}
