// Pl is the plugin.
package main

import "runtime"

var (
	hidden chan *int
	ended  = make(chan bool)
)

// Start starts both goroutines, and returns when they wait.
func Start() {
	before := runtime.NumGoroutine()
	hidden = make(chan *int)
	go waits(hidden)
	go loses()
	for runtime.NumGoroutine() < before+2 {
		runtime.Gosched()
	}
	for i := 0; i < 100; i++ {
		runtime.Gosched()
	}
}

func waits(c chan *int) {
	var found [4]*int
	for i := range found {
		got, more := <-c
		if !more {
			break
		}
		found[i] = got
	}
	close(ended)
}

func loses() {
	lost := make(chan *int)
	<-lost
}

// Stop ends the one that can be.
func Stop() {
	close(hidden)
	<-ended
}
