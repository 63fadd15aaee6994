// Command served has HTTP handlers that hang: with HTTP/1.1, or with HTTP/2 if it is called with "h2".
//
// The first one has a lock and sends a request of its own to a server that never answers; the others want the lock. It prints
// {"ready":true} when as many handlers have begun as there are requests.
package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"time"
)

var (
	mu     sync.Mutex
	silent string
	begun  = make(chan bool, 16)
)

type orders struct{ count int }

func (o *orders) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun <- true
	mu.Lock()
	defer mu.Unlock()
	o.count++
	response, err := http.Get("http://" + silent + "/upstream")
	if err == nil {
		response.Body.Close()
	}
	fmt.Fprintln(w, r.URL.Path)
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	silent = listener.Addr().String()
	server := httptest.NewUnstartedServer(&orders{})
	if len(os.Args) > 1 && os.Args[1] == "h2" {
		server.EnableHTTP2 = true
		server.StartTLS()
	} else {
		server.Start()
	}
	for i := 0; i < 4; i++ {
		go func(i int) {
			url := fmt.Sprintf("%s/orders/%d?token=secret", server.URL, i)
			response, err := server.Client().Post(url, "text/plain", nil)
			if err == nil {
				response.Body.Close()
			}
		}(i)
		<-begun
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Println(`{"ready":true}`)
	time.Sleep(time.Hour)
}
