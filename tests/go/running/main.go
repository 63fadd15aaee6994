// Running has goroutines that run all the time, whose stacks have dead and live variables, and waiters that only these
// variables lead to.
//
// "dead": 50 wait for a mutex of which the running main goroutine has the last pointer, in a variable that it does not use any
// more. "live": each of some running goroutines has, in a variable of an outer frame that it does use again, the only pointer
// to a channel on which another waits, while inner frames allocate, copy, write pointers, call deferred functions and grow the
// stack; it wakes the waiter, and begins anew. Prints {"ready":true}; answers "woken" with the number of waiters that were
// woken; ends on "exit".
package main

import (
	"bufio"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

type account struct {
	mu   sync.Mutex
	n    int
	name string
	pad  [40]byte
}

type node struct {
	left, right *node
	data        [20]*int
}

var (
	woken atomic.Int64
	sink  *node
	total int
)

//go:noinline
func work(n int) int {
	sum := 0
	for i := 0; i < n; i++ {
		sum += i ^ sum
	}
	return sum
}

func dead() {
	a := &account{name: "x"}
	a.mu.Lock()
	work(10)
	for i := 0; i < 50; i++ {
		go func() {
			a.mu.Lock()
			a.n++
			a.mu.Unlock()
		}()
	}
	fmt.Println(`{"ready":true}`)
	for {
		total += work(1_000_000)
	}
}

//go:noinline
func build(depth int, from *node) *node {
	var room [64]byte
	defer func() { room[0]++ }()
	n := &node{left: from}
	n.data[depth%20] = new(int)
	if depth > 0 {
		n.right = build(depth-1, n)
	}
	copied := *n
	n.left = &copied
	sink = n
	return n
}

//go:noinline
func outer(c chan int, depth int) {
	build(depth, nil)
	m := map[int]*node{}
	for i := 0; i < 50; i++ {
		m[i] = build(3, m[i-1])
	}
	// The last use: until here it is live, in this frame alone.
	c <- 1
}

func live() {
	for i := 0; i < 4; i++ {
		go func(depth int) {
			for {
				c := make(chan int)
				go func(c chan int) {
					<-c
					woken.Add(1)
				}(c)
				outer(c, depth)
			}
		}(10 * i)
	}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "dead" {
		go func() {
			bufio.NewScanner(os.Stdin).Scan()
			os.Exit(0)
		}()
		dead()
	}
	live()
	fmt.Println(`{"ready":true}`)
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() && commands.Text() != "exit" {
		fmt.Println(woken.Load())
	}
}
