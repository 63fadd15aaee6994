// Habits is a service whose goroutines come and go, and of which one stands or all do, in the way its first argument names. Some
// of that is wrong, some is as it should be. Without an argument it prints the names. It ends when its input does.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"sync"
	"time"
)

// pending are requests by their number, as a client of any protocol has them: whoever is forgotten here waits for ever, and can be
// reached.
var pending struct {
	sync.Mutex
	replies map[int]chan int
	last    int
}

var (
	events = make(chan int)
	batch  = make(chan int)
	open   = make(chan struct{})
	beats  = make(chan struct{})
)

// ask waits for the reply to a request.
func ask() int {
	pending.Lock()
	pending.last++
	reply := make(chan int, 1)
	pending.replies[pending.last] = reply
	pending.Unlock()
	return <-reply
}

// answer replies to every request after a while, but to those that it loses.
func answer(lost func(number int) bool) {
	for {
		time.Sleep(20 * time.Millisecond)
		pending.Lock()
		for number, reply := range pending.replies {
			if !lost(number) {
				reply <- number
				delete(pending.replies, number)
			}
		}
		pending.Unlock()
	}
}

// requests begins a goroutine for each request, fifty in a second.
func requests(serve func()) {
	for {
		go serve()
		time.Sleep(20 * time.Millisecond)
	}
}

// produce gives events for as long, with such a rest between two.
func produce(duration, rest time.Duration, to chan<- int) {
	for end := time.Now().Add(duration); time.Now().Before(end); time.Sleep(rest) {
		to <- 1
	}
}

func worker() {
	for range events {
		ask()
	}
}

// start is what a program has for all it starts.
func start(task func()) {
	go func() { task() }()
}

var habits = map[string]func(){
	// Wrong.
	"one of many gets no reply": func() {
		go answer(func(number int) bool { return number == 100 })
		go requests(func() { ask() })
	},
	"the loop gets no reply": func() {
		begun := time.Now()
		go answer(func(int) bool { return time.Since(begun) > 8*time.Second })
		go produce(time.Hour, 400*time.Millisecond, events)
		go worker()
	},
	"no worker gets a reply": func() {
		begun := time.Now()
		go answer(func(int) bool { return time.Since(begun) > 8*time.Second })
		go produce(time.Hour, 40*time.Millisecond, events)
		for i := 0; i < 6; i++ {
			go worker()
		}
	},
	// As it should be.
	"workers whose load has ended": func() {
		go answer(func(int) bool { return false })
		go produce(8*time.Second, 5*time.Millisecond, events)
		for i := 0; i < 6; i++ {
			go worker()
		}
	},
	"a loop within a loop": func() {
		go produce(8*time.Second, 5*time.Millisecond, batch)
		go func() {
			for {
				for end := time.Now().Add(8 * time.Second); time.Now().Before(end); {
					<-batch
				}
				<-events
			}
		}()
	},
	"a daemon among tasks": func() {
		go answer(func(int) bool { return false })
		start(func() { <-open })
		go func() {
			for {
				start(func() { ask() })
				time.Sleep(20 * time.Millisecond)
			}
		}()
	},
	"a long connection among short ones": func() {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go serve(conn)
			}
		}()
		dial := func() net.Conn {
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				panic(err)
			}
			return conn
		}
		dial()
		go requests(func() {
			conn := dial()
			time.Sleep(20 * time.Millisecond)
			conn.Close()
		})
	},
}

// serve has a reader and a writer for a connection, as servers of streams do.
func serve(conn net.Conn) {
	defer conn.Close()
	closed := make(chan struct{})
	go func() {
		select {
		case <-closed:
		case <-beats:
		}
	}()
	io.Copy(io.Discard, conn)
	close(closed)
}

func main() {
	out := json.NewEncoder(os.Stdout)
	if len(os.Args) < 2 {
		var names []string
		for name := range habits {
			names = append(names, name)
		}
		sort.Strings(names)
		out.Encode(names)
		return
	}
	pending.replies = map[int]chan int{}
	begin, ok := habits[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "habits: unknown: %q\n", os.Args[1])
		os.Exit(2)
	}
	begin()
	out.Encode(map[string]bool{"ready": true})
	io.Copy(io.Discard, os.Stdin)
}
