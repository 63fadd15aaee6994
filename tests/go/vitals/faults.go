package main

import (
	"net/http"
	"net/http/httptest"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

// kept holds on to what a fault needs.
var kept any

var faults = map[string]func(n int){
	"spin": func(n int) {
		for i := 0; i < n; i++ {
			go spin(i)
		}
		for i := 0; i < 4; i++ {
			go ticking()
		}
	},
	"syscalls": func(n int) {
		for i := 0; i < n; i++ {
			go block()
		}
	},
	"timers": func(n int) {
		sessions := make([]*session, n)
		for i := range sessions {
			sessions[i] = &session{}
			time.AfterFunc(24*time.Hour, sessions[i].expire)
		}
		kept = sessions
	},
	"tickers": func(n int) {
		tickers := make([]*time.Ticker, n)
		for i := range tickers {
			tickers[i] = time.NewTicker(time.Hour)
			go func(ticker *time.Ticker) { <-ticker.C }(tickers[i])
		}
		kept = tickers
	},
	"assorted": assorted,
	"fill": func(n int) {
		filled := make([]byte, n<<20)
		for i := range filled {
			filled[i] = 1
		}
		kept = filled
	},
	// Of each page one small object stays.
	"fragmentation": func(n int) {
		objects := make([]*[64]byte, n)
		for i := range objects {
			objects[i] = new([64]byte)
		}
		for i := range objects {
			if i%64 != 0 {
				objects[i] = nil
			}
		}
		kept = objects
		runtime.GC()
		runtime.GC()
	},
	"spiral": func(n int) {
		debug.SetGCPercent(-1)
		debug.SetMemoryLimit(int64(n) << 20)
		held := make([]*node, 0, 1024)
		var list *node
		// As much as the limit, live.
		for i := 0; i < n<<20/int(64); i++ {
			list = &node{next: list}
		}
		kept = append(held, list)
		for i := 0; i < 2; i++ {
			go churn()
		}
	},
	// Somebody stops the world, and somebody does not stop.
	"stop": func(n int) {
		runtime.GOMAXPROCS(2)
		go unstoppable()
		go func() {
			time.Sleep(100 * time.Millisecond)
			runtime.GC()
		}()
	},
	"contention": func(n int) {
		runtime.SetMutexProfileFraction(1)
		runtime.SetBlockProfileRate(1)
		contend()
	},
	"healthy": func(n int) {
		signal.Notify(make(chan chanSignal, 1))
		server := httptest.NewServer(http.HandlerFunc(serve))
		kept = server
		for i := 0; i < n; i++ {
			go ask(server.URL)
		}
	},
}

// assorted makes timers of each kind, n of most.
func assorted(n int) {
	sessions := make([]*session, n)
	for i := range sessions {
		sessions[i] = &session{}
		time.AfterFunc(time.Hour, sessions[i].expire)
		go listen()
		go expect()
		go doze(time.Hour)
	}
	time.AfterFunc(2*time.Hour, func() { kept = nil })
	kept = sessions
}

func listen() {
	for range time.Tick(time.Minute) {
	}
}

func expect() {
	select {
	case <-time.After(time.Hour):
	case <-make(chan int):
	}
}

//go:noinline
func doze(long time.Duration) { time.Sleep(long) }

type node struct {
	next *node
	_    [56]byte
}

type session struct{ expired int }

func (s *session) expire() { s.expired++ }

//go:noinline
func spin(from int) {
	for i := from; ; i++ {
		if i < 0 {
			return
		}
	}
}

func ticking() {
	for range time.Tick(5 * time.Millisecond) {
	}
}

func block() {
	var pipe [2]int
	must(syscall.Pipe(pipe[:]))
	var one [1]byte
	_, err := syscall.Read(pipe[0], one[:])
	must(err)
}

var sink *node

func churn() {
	for {
		sink = &node{}
	}
}

// Without asynchronous preemption (GODEBUG=asyncpreemptoff=1) nothing stops it.
//
//go:noinline
func unstoppable() {
	for i := 0; ; i++ {
		if i < 0 {
			return
		}
	}
}

func contend() {
	var mutex sync.Mutex
	var group sync.WaitGroup
	for i := 0; i < 4; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for j := 0; j < 20; j++ {
				hold(&mutex)
			}
		}()
	}
	group.Wait()
}

//go:noinline
func hold(mutex *sync.Mutex) {
	mutex.Lock()
	time.Sleep(100 * time.Microsecond)
	mutex.Unlock()
}

type page struct{ rows [][]byte }

func serve(w http.ResponseWriter, _ *http.Request) {
	answer := page{}
	for i := 0; i < 50; i++ {
		answer.rows = append(answer.rows, make([]byte, 512))
	}
	for _, row := range answer.rows {
		if _, err := w.Write(row); err != nil {
			return
		}
	}
}

func ask(url string) {
	for {
		response, err := http.Get(url)
		if err == nil {
			drain(response)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
