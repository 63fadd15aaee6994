// Layouts is built for its debugging information alone: it uses every part of the runtime whose structs parkwarden
// reads, so that the linker keeps their descriptions.
package main

import (
	"runtime"
	"sync"
	"time"
)

func main() {
	values := make(chan *int)
	var mutex sync.Mutex
	var group sync.WaitGroup
	group.Add(1)
	go func() {
		defer group.Done()
		mutex.Lock()
		defer mutex.Unlock()
		select {
		case values <- new(int):
		case <-time.After(time.Second):
		}
	}()
	value := <-values
	runtime.SetFinalizer(value, func(*int) {})
	group.Wait()
}
