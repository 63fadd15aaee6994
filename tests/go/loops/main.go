// Loops runs loops that their tickers wake, in the way it is told: some that nothing can ever end, and others. It is for Go 1.23 and
// later, where the channel of a timer says that it is one.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"time"
)

const loops = 10

var ways = map[string]func(n int){
	// Each has its done channel to itself.
	"alone": func(n int) { repeat(n, func() { looping(make(chan struct{}), nil) }) },
	// Whoever could end them sleeps.
	"that ends": func(n int) {
		repeat(n, func() {
			done := make(chan struct{})
			go func() { time.Sleep(time.Hour); close(done) }()
			looping(done, nil)
		})
	},
	// Each could end another.
	"beside another": func(n int) {
		for i := 0; i < n; i += 2 {
			one, other := make(chan struct{}), make(chan struct{})
			go looping(one, other)
			go looping(other, one)
		}
	},
	// Each has a goroutine that waits for it, and could end it.
	"with a helper": func(n int) {
		repeat(n, func() {
			done, help := make(chan struct{}), make(chan struct{})
			go func() { <-help; close(done) }()
			looping(done, help)
		})
	},
	// A timer ends it.
	"with an end": func(n int) {
		repeat(n, func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			_ = cancel
			looping(ctx.Done(), nil)
		})
	},
}

// Tired is what a loop that has other channels too would close them for.
var tired bool

func looping(done <-chan struct{}, other chan struct{}) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if tired {
				close(other)
			}
		case <-done:
			return
		}
	}
}

func repeat(n int, loop func()) {
	for i := 0; i < n; i++ {
		go loop()
	}
}

func main() {
	way, before := ways[os.Args[1]], runtime.NumGoroutine()
	started := make(chan bool)
	// What it has on its stack is gone when it returns.
	go func() {
		way(loops)
		close(started)
	}()
	<-started
	for runtime.NumGoroutine() < before+loops {
		runtime.Gosched()
	}
	// Each has come to wait.
	time.Sleep(100 * time.Millisecond)
	fmt.Println("{\"ready\":true}")
	bufio.NewScanner(os.Stdin).Scan()
}
