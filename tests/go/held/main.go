// Leaks goroutines of two go statements that keep heap, some of it in common, and says by how much the heap and the stacks have
// grown for it.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"runtime"
	"sync"
)

const count = 1000

// made is done when all have what they keep.
var made sync.WaitGroup

type node struct {
	next *node
	data [56]byte
}

func list(length int) (head *node) {
	for range make([]struct{}, length) {
		head = &node{next: head}
	}
	return head
}

// buffers keeps 16 KiB without pointers.
func buffers(shared *node) {
	done := make(chan struct{})
	data := make([]byte, 16<<10)
	made.Done()
	<-done
	data[0]++
	runtime.KeepAlive(data)
	runtime.KeepAlive(shared)
}

// lists keeps 100 nodes of 64 bytes.
func lists(shared *node) {
	done := make(chan int)
	own := list(100)
	made.Done()
	done <- 1
	runtime.KeepAlive(own)
	runtime.KeepAlive(shared)
}

func memory() (stats runtime.MemStats) {
	// The second collection sweeps what the first has found.
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return stats
}

func main() {
	made.Add(2 * count)
	before := memory()
	func() {
		shared := list(10_000)
		for i := 0; i < count; i++ {
			go buffers(shared)
			go lists(shared)
		}
	}()
	made.Wait()
	// Until all of them wait.
	for i := 0; i < 1000; i++ {
		runtime.Gosched()
	}
	after := memory()
	json.NewEncoder(os.Stdout).Encode(map[string]uint64{
		"heap":  after.HeapAlloc - before.HeapAlloc,
		"stack": after.StackInuse - before.StackInuse,
	})
	bufio.NewReader(os.Stdin).ReadString('\n')
}
