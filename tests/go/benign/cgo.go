//go:build cgo

package main

// #cgo LDFLAGS: -lpthread
// extern void startThreads(int n);
import "C"

import "sync"

var (
	called  sync.WaitGroup
	replies = make(chan int)
)

// answer is called by threads that C made, on goroutines of their own, and waits for a reply that can still come.
//
//export answer
func answer() {
	called.Done()
	<-replies
}

func init() {
	class("C threads that call back", func() {
		called.Add(4)
		C.startThreads(4)
		called.Wait()
		hold(func() { replies <- 1 })
	})
}
