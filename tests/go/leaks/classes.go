package main

import (
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// A leak starts n goroutines that park for good. Each class has its own function and its own go statement, which is how
// the program tells afterwards which goroutine is of which class.
type leak struct {
	class string
	start func(n int)
	// function has the go statement whose goroutines are the class: start's own name, but for the one class whose
	// goroutines are made by net/http.
	function string
}

var leaks = []leak{
	{"chan-send", startChanSend, "main.startChanSend"},
	{"chan-send-full", startChanSendFull, "main.startChanSendFull"},
	{"chan-receive", startChanReceive, "main.startChanReceive"},
	{"nil-chan-send", startNilChanSend, "main.startNilChanSend"},
	{"nil-chan-receive", startNilChanReceive, "main.startNilChanReceive"},
	{"select", startSelect, "main.startSelect"},
	{"select-empty", startSelectEmpty, "main.startSelectEmpty"},
	{"mutex", startMutex, "main.startMutex"},
	{"rwmutex-rlock", startRLock, "main.startRLock"},
	{"rwmutex-lock", startRWLock, "main.startRWLock"},
	{"cond", startCond, "main.startCond"},
	{"waitgroup", startWaitGroup, "main.startWaitGroup"},
	{"sleep", startSleep, "main.startSleep"},
	{"ticker", startTicker, "main.startTicker"},
	{"time-after", startTimeAfter, "main.startTimeAfter"},
	{"http-handler", startHTTPHandler, "net/http.(*Server).Serve"},
	{"net-read", startNetRead, "main.startNetRead"},
	{"syscall", startSyscall, "main.startSyscall"},
}

// Held by package variables so that no primitive is collected, and finalized, under its waiters.
var (
	keep     []any
	nilSend  chan int
	nilRecv  chan int
	requests = make(chan struct{})
)

func startChanSend(n int) {
	c := make(chan int)
	keep = append(keep, c)
	for i := 0; i < n; i++ {
		go func() {
			c <- 1
		}()
	}
}

func startChanSendFull(n int) {
	c := make(chan string, 2)
	c <- "full"
	c <- "full"
	keep = append(keep, c)
	for i := 0; i < n; i++ {
		go func() {
			c <- "one more"
		}()
	}
}

func startChanReceive(n int) {
	c := make(chan int)
	keep = append(keep, c)
	for i := 0; i < n; i++ {
		go receive(c)
	}
}

func receive(c chan int) int {
	return <-c
}

func startNilChanSend(n int) {
	for i := 0; i < n; i++ {
		go func() {
			nilSend <- 1
		}()
	}
}

func startNilChanReceive(n int) {
	for i := 0; i < n; i++ {
		go func() {
			<-nilRecv
		}()
	}
}

func startSelect(n int) {
	a, b := make(chan int), make(chan string)
	keep = append(keep, a, b)
	for i := 0; i < n; i++ {
		go func() {
			select {
			case <-a:
			case b <- "dead":
			}
		}()
	}
}

func startSelectEmpty(n int) {
	for i := 0; i < n; i++ {
		go func() {
			select {}
		}()
	}
}

func startMutex(n int) {
	mutex := new(sync.Mutex)
	mutex.Lock()
	keep = append(keep, mutex)
	for i := 0; i < n; i++ {
		go func() {
			mutex.Lock()
			defer mutex.Unlock()
		}()
	}
}

func startRLock(n int) {
	mutex := new(sync.RWMutex)
	mutex.Lock()
	keep = append(keep, mutex)
	for i := 0; i < n; i++ {
		go func() {
			mutex.RLock()
			defer mutex.RUnlock()
		}()
	}
}

// A mutex each: writers that share one wait for each other in sync.Mutex, not for the reader.
func startRWLock(n int) {
	for i := 0; i < n; i++ {
		mutex := new(sync.RWMutex)
		mutex.RLock()
		keep = append(keep, mutex)
		go func() {
			mutex.Lock()
			defer mutex.Unlock()
		}()
	}
}

func startCond(n int) {
	cond := sync.NewCond(new(sync.Mutex))
	keep = append(keep, cond)
	for i := 0; i < n; i++ {
		go func() {
			cond.L.Lock()
			defer cond.L.Unlock()
			cond.Wait()
		}()
	}
}

func startWaitGroup(n int) {
	group := new(sync.WaitGroup)
	group.Add(1)
	keep = append(keep, group)
	for i := 0; i < n; i++ {
		go func() {
			group.Wait()
		}()
	}
}

func startSleep(n int) {
	for i := 0; i < n; i++ {
		go func() {
			time.Sleep(time.Hour)
		}()
	}
}

func startTicker(n int) {
	for i := 0; i < n; i++ {
		go func() {
			ticker := time.NewTicker(time.Hour)
			for range ticker.C {
			}
		}()
	}
}

func startTimeAfter(n int) {
	for i := 0; i < n; i++ {
		go func() {
			for {
				<-time.After(time.Hour)
			}
		}()
	}
}

// Requests in flight to a server in this process, to a handler that never looks at the request's context.
func startHTTPHandler(n int) {
	listener := listen()
	server := &http.Server{Handler: http.HandlerFunc(handle)}
	go server.Serve(listener)
	for i := 0; i < n; i++ {
		connection := dial(listener)
		if _, err := io.WriteString(connection, "GET / HTTP/1.1\r\nHost: leaks\r\n\r\n"); err != nil {
			panic(err)
		}
	}
}

func handle(http.ResponseWriter, *http.Request) {
	<-requests
}

func startNetRead(n int) {
	listener := listen()
	for i := 0; i < n; i++ {
		connection := dial(listener)
		go func() {
			buffer := make([]byte, 1)
			connection.Read(buffer)
		}()
	}
}

// A raw read of a pipe in blocking mode, which the network poller knows nothing of.
func startSyscall(n int) {
	for i := 0; i < n; i++ {
		var ends [2]int
		if err := syscall.Pipe(ends[:]); err != nil {
			panic(err)
		}
		go func() {
			buffer := make([]byte, 1)
			syscall.Read(ends[0], buffer)
		}()
	}
}

func listen() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	keep = append(keep, listener)
	return listener
}

func dial(listener net.Listener) net.Conn {
	connection, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		panic(err)
	}
	keep = append(keep, connection)
	return connection
}
