// Movers keeps goroutines waiting for channels that never stay in one place: every reference to each channel is moved
// on all the time, from cell to cell, through maps, channels, stacks and closures, and each is used to wake its waiter in
// the end. Whoever looks at its memory while it runs sees channels that nobody has. With an argument the channels of cells and
// maps are moved, and nobody is woken.
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

type cell struct {
	c    chan int
	next *cell
	pad  [6]uintptr
}

const (
	channels = 200
	cells    = 2000
)

var woken atomic.Uint64

// resting moves channels and wakes nobody, so that the waiters stand still although all of them can be woken.
var resting = len(os.Args) > 1

func waiter(c chan int) {
	for range c {
		woken.Add(1)
	}
}

// inCells moves channels between the cells of an array that only this stack has.
func inCells() {
	own := make([]*cell, cells)
	for i := range own {
		own[i] = &cell{}
	}
	for i := 0; i < channels; i++ {
		c := make(chan int)
		own[i].c = c
		go waiter(c)
	}
	for {
		from, to := rand.Intn(cells), rand.Intn(cells)
		own[from].c, own[to].c = own[to].c, own[from].c
		if rand.Intn(64) == 0 {
			own[from] = &cell{c: own[from].c, next: &cell{}}
		}
		if c := own[to].c; c != nil && !resting && rand.Intn(16) == 0 {
			c <- 1
		}
	}
}

// inMessages passes cells on in a ring of channels.
func inMessages() {
	const stations = 8
	ring := make([]chan *cell, stations)
	for i := range ring {
		ring[i] = make(chan *cell, i%3)
	}
	for i := range ring {
		go func(from, to chan *cell) {
			for got := range from {
				got.c <- 1
				moved := &cell{c: got.c}
				got.c = nil
				to <- moved
			}
		}(ring[i], ring[(i+1)%stations])
	}
	for i := 0; i < 6; i++ {
		c := make(chan int)
		go waiter(c)
		ring[i] <- &cell{c: c}
	}
}

// inMaps moves channels between two maps.
func inMaps() {
	a, b := map[int]chan int{}, map[int]chan int{}
	for i := 0; i < channels; i++ {
		a[i] = make(chan int)
		go waiter(a[i])
	}
	for {
		for key, c := range a {
			delete(a, key)
			b[rand.Int()] = c
			if !resting {
				c <- 1
			}
		}
		a, b = b, a
	}
}

// inClosures hands each channel from one short-lived goroutine to the next.
func inClosures() {
	var pass func(c chan int)
	pass = func(c chan int) {
		c <- 1
		go func() { pass(c) }()
	}
	for i := 0; i < 20; i++ {
		c := make(chan int)
		go waiter(c)
		pass(c)
	}
}

// inTimers keeps channels nowhere but in timers.
func inTimers() {
	for i := 0; i < 50; i++ {
		go func() {
			for {
				<-time.After(time.Duration(rand.Intn(1000)) * time.Microsecond)
				woken.Add(1)
			}
		}()
		go func() {
			for {
				c := make(chan int)
				time.AfterFunc(time.Duration(rand.Intn(1000))*time.Microsecond, func() { close(c) })
				<-c
			}
		}()
	}
}

// inSelects has goroutines that reply to whoever asked, and forget them.
func inSelects() {
	asked := make(chan chan int)
	for i := 0; i < 4; i++ {
		go func() {
			for reply := range asked {
				reply <- 1
			}
		}()
		go func() {
			for {
				reply := make(chan int)
				select {
				case asked <- reply:
					<-reply
				case <-time.After(time.Millisecond):
				}
			}
		}()
	}
}

func main() {
	go inCells()
	go inMaps()
	inMessages()
	inClosures()
	inTimers()
	inSelects()
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
