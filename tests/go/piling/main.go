// Command piling leaks goroutines that everything can still be reached of, so that no proof is possible: each class starts
// one every few milliseconds, for as long as the program runs. What tells them is that they pile up.
//
// It prints {"classes":[NAMES]} when all have begun, and ends on "exit". A class is named after the function whose go
// statement leaks. With the argument "orphans" there is one more, of which a proof is possible: main.orphan;
// with "only-orphans" there is no other.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// every is the time between two leaks of one class.
const every = 10 * time.Millisecond

// start leaks by calling leak again and again. Its argument starts one goroutine and keeps what that waits for.
func start(leak func(n int)) {
	go func() {
		for n := 0; ; n++ {
			leak(n)
			time.Sleep(every)
		}
	}()
}

var mu sync.Mutex

var waiters = map[int]chan int{}

// A request registers for an answer that nobody gives, and nobody takes it out of the map.
func abandonedAnswer(n int) {
	answer := make(chan int)
	mu.Lock()
	waiters[n] = answer
	mu.Unlock()
	go func() { <-answer }()
}

var subscribers []chan string

// A subscriber that has gone is not taken off the list.
func forgottenSubscriber(int) {
	messages := make(chan string, 1)
	mu.Lock()
	subscribers = append(subscribers, messages)
	mu.Unlock()
	go func() {
		for range messages {
		}
	}()
}

var queue = make(chan int, 4)

// The queue's reader has ended.
func abandonedQueue(n int) {
	go func() { queue <- n }()
}

var results = make(chan int)

// Nobody collects the results any more.
func uncollectedResult(n int) {
	go func() { results <- n }()
}

var pending sync.WaitGroup

// One is never done.
func waitsForAll(int) {
	go pending.Wait()
}

var table sync.Mutex

// Whoever locked it returned without unlocking.
func wantsLock(int) {
	go func() {
		table.Lock()
		table.Unlock()
	}()
}

var settings sync.RWMutex

func wantsToRead(int) {
	go func() {
		settings.RLock()
		settings.RUnlock()
	}()
}

var changed = sync.NewCond(&sync.Mutex{})

// Nobody signals a change any more.
func waitsForChange(int) {
	go func() {
		changed.L.Lock()
		changed.Wait()
		changed.L.Unlock()
	}()
}

var sessions []context.CancelFunc

// Nobody calls the cancel functions.
func uncancelled(int) {
	ctx, cancel := context.WithCancel(context.Background())
	mu.Lock()
	sessions = append(sessions, cancel)
	mu.Unlock()
	go func() { <-ctx.Done() }()
}

var stops []chan struct{}

func newStop() chan struct{} {
	stop := make(chan struct{})
	mu.Lock()
	stops = append(stops, stop)
	mu.Unlock()
	return stop
}

// A ticker in a loop that nobody ends.
func ticking(int) {
	stop := newStop()
	go func() {
		ticker := time.NewTicker(30 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
			case <-stop:
				return
			}
		}
	}()
}

// time.After in a loop that nobody ends.
func afterLoop(int) {
	stop := newStop()
	go func() {
		for {
			select {
			case <-time.After(30 * time.Millisecond):
			case <-stop:
				return
			}
		}
	}()
}

// The same with a timer so long that it does not fire while anybody looks.
func longAfter(int) {
	stop := newStop()
	go func() {
		select {
		case <-time.After(time.Hour):
		case <-stop:
		}
	}()
}

var done bool

// Polls for what does not come.
func polling(int) {
	go func() {
		for {
			mu.Lock()
			end := done
			mu.Unlock()
			if end {
				return
			}
			time.Sleep(30 * time.Millisecond)
		}
	}()
}

var tokens = make(chan struct{}, 2)

// The semaphore's holders do not release it.
func wantsToken(int) {
	go func() {
		tokens <- struct{}{}
		<-tokens
	}()
}

var connections []net.Conn

// The other end of the connection is kept and never says anything.
func silentConnection(int) {
	here, there := net.Pipe()
	mu.Lock()
	connections = append(connections, there)
	mu.Unlock()
	go func() { _, _ = here.Read(make([]byte, 1)) }()
}

var once sync.Once

// The first never ends what all want to have been done once.
func waitsForFirst(int) {
	go once.Do(func() { <-results2 })
}

var results2 = make(chan int)

// Nobody else ever had its channel.
func orphan(int) {
	go func() { make(chan int) <- 1 }()
}

func main() {
	pending.Add(1)
	table.Lock()
	settings.Lock()
	tokens <- struct{}{}
	tokens <- struct{}{}
	for len(queue) < cap(queue) {
		queue <- 0
	}
	classes := map[string]func(int){
		"main.abandonedAnswer": abandonedAnswer, "main.forgottenSubscriber": forgottenSubscriber,
		"main.abandonedQueue": abandonedQueue, "main.uncollectedResult": uncollectedResult,
		"main.waitsForAll": waitsForAll, "main.wantsLock": wantsLock, "main.wantsToRead": wantsToRead,
		"main.waitsForChange": waitsForChange, "main.uncancelled": uncancelled, "main.ticking": ticking,
		"main.afterLoop": afterLoop, "main.longAfter": longAfter, "main.polling": polling,
		"main.wantsToken": wantsToken, "main.silentConnection": silentConnection, "main.waitsForFirst": waitsForFirst,
	}
	if len(os.Args) > 1 {
		if os.Args[1] == "only-orphans" {
			classes = map[string]func(int){}
		}
		classes["main.orphan"] = orphan
	}
	var names []string
	for name, leak := range classes {
		names = append(names, name)
		start(leak)
	}
	text, _ := json.Marshal(names)
	fmt.Printf("{\"classes\":%s}\n", text)
	for input := bufio.NewScanner(os.Stdin); input.Scan() && input.Text() != "exit"; {
	}
	// What is kept is used, so that it is reachable.
	fmt.Fprintln(os.Stderr, len(waiters), len(subscribers), len(sessions), len(stops), len(connections))
}
