// Boxes keep goroutines waiting for channels that lie in the variables of parked goroutines, now of one, now of another,
// and nowhere else. Each box parks at the same place, with the same fields in its `g`, whether it holds a channel or not,
// thousands of times a second, or seldom enough that the collector notes since when it waits. Beside them are goroutines
// that are leaked and never move.
package main

import (
	"bufio"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

const leaks = 1000

var woken atomic.Uint64

func waiter(c chan int) {
	for range c {
		woken.Add(1)
	}
}

// box takes what it is given, and hands it out when it is given nothing.
func box(in, out chan chan int) {
	var held chan int
	for got := range in {
		if got != nil {
			held = got
		} else {
			out <- held
			held = nil
		}
	}
}

// carry moves a channel from box to box, and wakes who waits for it now and then.
func carry(boxes int, pause time.Duration) {
	var in, out []chan chan int
	for i := 0; i < boxes; i++ {
		in, out = append(in, make(chan chan int)), append(out, make(chan chan int))
		go box(in[i], out[i])
	}
	start(in[0])
	for at := 0; ; {
		if pause != 0 {
			time.Sleep(time.Duration(rand.Int63n(int64(pause))))
		}
		in[at] <- nil
		to := (at + 1 + rand.Intn(boxes-1)) % boxes
		move(out[at], in[to])
		at = to
	}
}

//go:noinline
func start(to chan chan int) {
	c := make(chan int)
	go waiter(c)
	to <- c
}

//go:noinline
func move(from, to chan chan int) {
	c := <-from
	if rand.Intn(4) == 0 {
		select {
		case c <- 1:
		default:
		}
	}
	to <- c
}

func leaked() { <-make(chan int) }

func main() {
	for i := 0; i < leaks; i++ {
		go leaked()
	}
	for i := 0; i < 20; i++ {
		go carry(2, 0)
		go carry(20, 0)
		go carry(50, 5*time.Millisecond)
	}
	go func() {
		for {
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
	}()
	fmt.Println("{\"ready\":true}")
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		switch input.Text() {
		case "woken":
			fmt.Println(woken.Load())
		case "exit":
			return
		}
	}
}
