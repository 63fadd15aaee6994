// Stuck leaks goroutines in the way it is told, lets the runtime's own leak profile look for them if it has one, and says
// what that found.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"
)

var registry struct {
	mu      sync.Mutex
	members sync.WaitGroup
}

var ways = map[string]func(n int){
	// The value sent is a captured variable, so that the sender's own list entry leads to the channel.
	"captured": func(n int) {
		for i := 0; i < n; i++ {
			c := make(chan int)
			i := i
			go func() { c <- i }()
		}
	},
	// Each waits for what only the one before could do; the first waits for nobody.
	"chain": func(n int) {
		from := make(chan int)
		for i := 0; i < n; i++ {
			to := make(chan int)
			go func(from, to chan int) { to <- <-from }(from, to)
			from = to
		}
	},
	// The same, but the first sleeps.
	"live chain": func(n int) {
		from := make(chan int)
		go func(first chan int) {
			time.Sleep(time.Hour)
			first <- 1
		}(from)
		for i := 0; i < n; i++ {
			to := make(chan int)
			go func(from, to chan int) { to <- <-from }(from, to)
			from = to
		}
	},
	"send": func(n int) { repeat(n, func() { make(chan int) <- 1 }) },
	"send full": func(n int) {
		repeat(n, func() {
			c := make(chan int, 3)
			for {
				c <- 1
			}
		})
	},
	"receive":      func(n int) { repeat(n, func() { <-make(chan string) }) },
	"range":        func(n int) { repeat(n, func() { ranging(make(chan string)) }) },
	"nil channel":  func(n int) { repeat(n, func() { <-nothing }) },
	"empty select": func(n int) { repeat(n, func() { select {} }) },
	"select": func(n int) {
		repeat(n, func() {
			select {
			case <-make(chan int):
			case make(chan string) <- "":
			}
		})
	},
	"wait group": func(n int) {
		repeat(n, func() {
			wg := &sync.WaitGroup{}
			wg.Add(2)
			go wg.Done()
			wg.Wait()
		})
	},
	"mutex": func(n int) {
		repeat(n, func() {
			mu := &lock{}
			mu.Lock()
			mu.Lock()
		})
	},
	// Mutexes alone, each beside a number that stays in use.
	"mutex before a number": func(n int) {
		for i := 0; i < n; i++ {
			mu, _ := besides(true)
			twice(mu)
		}
	},
	"mutex behind a number": func(n int) {
		for i := 0; i < n; i++ {
			mu, _ := besides(false)
			twice(mu)
		}
	},
	"lock order": func(n int) {
		for i := 0; i < n; i++ {
			a, b := &lock{}, &lock{}
			var both sync.WaitGroup
			both.Add(2)
			inOrder := func(first, second *lock) {
				first.Lock()
				both.Done()
				both.Wait()
				second.Lock()
				first.Unlock()
			}
			go inOrder(a, b)
			go inOrder(b, a)
		}
	},
	// One has the lock and is stuck on something else; the others want it.
	"lock pile": func(n int) {
		mu := &lock{}
		locked := make(chan bool)
		go func() {
			mu.Lock()
			close(locked)
			<-make(chan int)
			mu.Unlock()
		}()
		<-locked
		repeat(n-1, func() {
			mu.Lock()
			mu.Unlock()
		})
	},
	// One is stuck and has a lock that everybody can reach; one waits for it to be done, the others want the lock.
	"registry": func(n int) {
		registry.members.Add(1)
		locked := make(chan bool)
		go func() {
			defer registry.members.Done()
			registry.mu.Lock()
			defer registry.mu.Unlock()
			close(locked)
			<-make(chan int)
		}()
		<-locked
		go func() { registry.members.Wait() }()
		repeat(n-2, func() {
			registry.mu.Lock()
			defer registry.mu.Unlock()
		})
	},
	"rwmutex": func(n int) {
		repeat(n, func() {
			mu := &sync.RWMutex{}
			mu.RLock()
			mu.Lock()
		})
	},
	"cond": func(n int) {
		repeat(n, func() {
			c := sync.NewCond(&sync.Mutex{})
			c.L.Lock()
			c.Wait()
		})
	},
	// Eight wait for each, and stood in each other's way before.
	"crowded conditions": func(n int) {
		for i := 0; i < n; i++ {
			c := sync.NewCond(&sync.Mutex{})
			repeat(8, func() {
				c.L.Lock()
				runtime.Gosched()
				c.Wait()
			})
		}
	},
	"context": func(n int) {
		repeat(n, func() {
			ctx, cancel := context.WithCancel(context.Background())
			_ = cancel
			<-ctx.Done()
		})
	},
	"stopped timer": func(n int) {
		repeat(n, func() {
			t := time.NewTimer(time.Hour)
			t.Stop()
			<-t.C
		})
	},
	// Nothing is stuck, and there are n megabytes of pointers to copy.
	"heap": func(n int) {
		for i := 0; i < n; i++ {
			heap = append(heap, make([]*int, 1<<17))
		}
	},
}

var (
	nothing chan int
	heap    [][]*int
	numbers []*int64
)

func twice(mu *sync.Mutex) {
	go func() {
		mu.Lock()
		mu.Lock()
	}()
}

// besides makes a mutex and a number that share an allocation, the mutex first or last, and keeps the number.
//
//go:noinline
func besides(first bool) (*sync.Mutex, *int64) {
	for {
		one, other := new(sync.Mutex), new(int64)
		if !first {
			other = new(int64)
			one = new(sync.Mutex)
		}
		from, to := uintptr(unsafe.Pointer(one)), uintptr(unsafe.Pointer(other))
		if from/16 == to/16 && first == (from < to) {
			numbers = append(numbers, other)
			return one, other
		}
		odd = new(int32)
	}
}

var odd *int32

// lock is a mutex with heap of its own: one alone shares it with whatever else is small and holds no pointers.
type lock struct {
	sync.Mutex
	name *int
}

func ranging(c chan string) {
	for range c {
	}
}

func repeat(n int, leak func()) {
	for i := 0; i < n; i++ {
		go leak()
	}
}

// What a way has on its stack is gone when it returns.
//
//go:noinline
func start(way string, n int) { ways[way](n) }

func main() {
	for _, argument := range os.Args[1:] {
		way, count, _ := strings.Cut(argument, "=")
		n, err := strconv.Atoi(count)
		if err != nil || ways[way] == nil {
			fmt.Fprintln(os.Stderr, "no such way:", argument)
			os.Exit(2)
		}
		started := make(chan bool)
		go func() {
			start(way, n)
			close(started)
		}()
		<-started
	}
	settle()
	fmt.Printf("{\"ready\":true,\"goroutines\":%d,\"runtime\":%d}\n", runtime.NumGoroutine(), runtimeSays())
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		switch input.Text() {
		case "ping":
			fmt.Println("{\"done\":true}")
		case "exit":
			return
		}
	}
}

// runtimeSays is how many goroutines the runtime's leak profile finds; -1 if it has none.
func runtimeSays() int {
	runtime.GC()
	profile := pprof.Lookup("goroutineleak")
	if profile == nil {
		return -1
	}
	var text strings.Builder
	if err := profile.WriteTo(&text, 2); err != nil {
		panic(err)
	}
	return len(regexp.MustCompile(`(?m)^goroutine \d+ \[.*\(leaked\)`).FindAllString(text.String(), -1))
}

// settle waits until as many goroutines exist for a while.
func settle() {
	for same, last := 0, -1; same < 20; time.Sleep(5 * time.Millisecond) {
		if now := runtime.NumGoroutine(); now == last {
			same++
		} else {
			same, last = 0, now
		}
	}
}
