// Command partners hangs at channels whose other side is there and does not come to it.
//
// With "lock", whoever has the lock sends to the one goroutine that receives, and that one wants the lock first: they wait for
// one another. With "none", one goroutine sends to a receiver that has left. With "rest", nothing is wrong: three workers wait for
// work that the main goroutine sends once an hour.
//
// It prints a line with the ids of its goroutines when they are about to stand: {"sender":S,"receiver":R}; 0 where there is none.
package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"
)

type hub struct {
	mu     sync.Mutex
	seen   int
	events chan int
}

func goid() int {
	buffer := make([]byte, 64)
	fields := bytes.Fields(buffer[:runtime.Stack(buffer, false)])
	id, _ := strconv.Atoi(string(fields[1]))
	return id
}

//go:noinline
func (h *hub) publish(ids chan<- int, locked chan<- bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids <- goid()
	close(locked)
	h.events <- 1
}

//go:noinline
func (h *hub) consume(ids chan<- int, locked <-chan bool) {
	ids <- goid()
	<-locked
	for {
		h.mu.Lock()
		h.seen++
		h.mu.Unlock()
		<-h.events
	}
}

//go:noinline
func (h *hub) leave(ids chan<- int) {
	ids <- goid()
	h.events <- 1
}

//go:noinline
func work(jobs <-chan int, ids chan<- int) {
	ids <- goid()
	for range jobs {
	}
}

func main() {
	h := &hub{events: make(chan int)}
	ids, locked := make(chan int), make(chan bool)
	sender, receiver := 0, 0
	switch os.Args[1] {
	case "lock":
		go h.publish(ids, locked)
		sender = <-ids
		go h.consume(ids, locked)
		receiver = <-ids
	case "none":
		go h.leave(ids)
		sender = <-ids
	case "rest":
		jobs := make(chan int)
		for i := 0; i < 3; i++ {
			go work(jobs, ids)
			receiver = <-ids
		}
		fmt.Printf("{\"sender\":%d,\"receiver\":%d}\n", goid(), receiver)
		for i := 0; ; i++ {
			time.Sleep(time.Hour)
			jobs <- i
		}
	}
	fmt.Printf("{\"sender\":%d,\"receiver\":%d}\n", sender, receiver)
	time.Sleep(time.Hour)
}
