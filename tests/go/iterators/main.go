// Iterators suspends coroutines of iter.Pull: some whose next and stop nobody has any more, and some that somebody can still
// resume, all of them in ways of their own. It says how many of the first there are, and on "resume" resumes all others. With
// the argument "cursors" it opens one after the other instead, and resumes all of them again and again.
package main

import (
	"bufio"
	"fmt"
	"iter"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const each = 5

// A pulled is what iter.Pull gives.
type pulled struct {
	next func() (int, bool)
	stop func()
}

// Its iterator has heap of its own to lead to.
func numbers(from *int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := *from; yield(i); i++ {
		}
		ended.Add(1)
	}
}

func pull() pulled {
	next, stop := iter.Pull(numbers(new(int)))
	return pulled{next, stop}
}

func begun() pulled {
	p := pull()
	p.next()
	p.next()
	return p
}

// Of what nobody can resume.
var lost = map[string]func(){
	"never begun":    func() { pull() },
	"after a value":  func() { begun() },
	"stop forgotten": func() { next, _ := iter.Pull(numbers(new(int))); next() },
	"two values": func() {
		next, _ := iter.Pull2(func(yield func(int, string) bool) { _ = yield(1, "one") && yield(2, "two") })
		next()
	},
	// The outer's iterator has the inner's next: both are lost.
	"in another": func() {
		next, _ := iter.Pull(func(yield func(int) bool) {
			inner := begun()
			defer inner.stop()
			for {
				if n, more := inner.next(); !more || !yield(n) {
					return
				}
			}
		})
		next()
	},
	// Who waits for the value of an iterator that waits for nobody.
	"body that waits": func() {
		next, _ := iter.Pull(func(yield func(int) bool) { yield(<-make(chan int)) })
		go next()
	},
}

var (
	ended   atomic.Int64
	global  pulled
	globals = map[string]func(){}
	queue   = make(chan pulled, 1)
	boxes   [64]atomic.Pointer[pulled]
	resume  = make(chan struct{})
	resumed sync.WaitGroup
)

// Of what somebody can resume.
var kept = []func(){
	func() { global = begun(); later(func() { global.stop() }) },
	func() { globals["stop"] = begun().stop; later(func() { globals["stop"]() }) },
	func() { globals["next"] = func() { pull().next() }; later(func() {}) },
	func() { queue <- pull(); later(func() { (<-queue).stop() }) },
	func() { later(begun().stop) },
	func() { p := begun(); later(func() { defer p.stop() }) },
	func() { p := pull(); later(func() { p.next(); p.stop() }) },
	func() {
		p := begun()
		timer := time.AfterFunc(time.Hour, p.stop)
		later(func() { timer.Reset(0) })
	},
	// Whoever has the outer's next has the inner's iterator.
	func() {
		outer, stop := iter.Pull(func(yield func(int) bool) {
			inner := begun()
			defer inner.stop()
			for {
				if n, more := inner.next(); !more || !yield(n) {
					return
				}
			}
		})
		outer()
		later(stop)
	},
	// One that is tied to a thread.
	func() {
		resumed.Add(1)
		tied := make(chan struct{})
		go func() {
			defer resumed.Done()
			runtime.LockOSThread()
			p := begun()
			close(tied)
			<-resume
			p.stop()
		}()
		<-tied
	},
	// One whose iterator waits, with who asked for its value.
	func() {
		values := make(chan int)
		next, stop := iter.Pull(func(yield func(int) bool) {
			for yield(<-values) {
			}
		})
		resumed.Add(1)
		go func() {
			defer resumed.Done()
			next()
			stop()
		}()
		later(func() { values <- 1 })
	},
}

func later(do func()) {
	resumed.Add(1)
	go func() {
		defer resumed.Done()
		<-resume
		do()
	}()
}

// Pulls values and moves iterators about, all the time.
func busy() {
	own := begun()
	for i := 0; ; i++ {
		own.next()
		moved := own
		if other := boxes[i%len(boxes)].Swap(&moved); other != nil {
			own = *other
		} else {
			own = begun()
		}
		if i%10000 == 0 {
			own.stop()
			own = begun()
		}
	}
}

func abandoned() {
	for _, lose := range lost {
		for range each {
			lose()
		}
	}
}

// Opens cursors and keeps them, and asks each for its next value at every turn.
func cursors() {
	var open []pulled
	for {
		open = append(open, begun())
		for _, cursor := range open {
			cursor.next()
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "cursors" {
		fmt.Println("{\"ready\":true,\"lost\":0}")
		cursors()
	}
	done := make(chan bool)
	go func() { abandoned(); close(done) }()
	<-done
	for _, keep := range kept {
		keep()
	}
	go busy()
	for boxes[len(boxes)-1].Load() == nil {
		runtime.Gosched()
	}
	runtime.GC()
	// One of them is two, and of another it is not the iterator that nobody can resume but what it waits for.
	fmt.Printf("{\"ready\":true,\"lost\":%d}\n", each*(len(lost)+1))
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		switch input.Text() {
		case "resume":
			close(resume)
			resumed.Wait()
			fmt.Println("{\"done\":true}")
		case "exit":
			return
		}
	}
}
