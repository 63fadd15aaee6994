// Hung is a service that hangs in the way its first argument names, from the start and for ever, and does not grow. Without an
// argument it prints the names. Beside the hang there are workers without work, which is no hang. It ends when its input does.
package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"sort"
	"sync"
	"time"
)

// The service's state, which everything below can reach.
var state struct {
	mu, other sync.Mutex
	rw        sync.RWMutex
	once      sync.Once
	group     sync.WaitGroup
	jobs      chan int
	slots     chan struct{}
	pipe      *io.PipeWriter
	db        *sql.DB
	server    *httptest.Server
	client    *http.Client
}

func times(n int, f func()) {
	for i := 0; i < n; i++ {
		go f()
	}
}

// wait lets those before it go first.
func wait() { time.Sleep(100 * time.Millisecond) }

// resource is what has a finalizer; large enough for one to itself.
type resource struct{ pad [64]byte }

var hangs = map[string]func(){
	"finalizer that does not return": func() {
		entered := make(chan struct{})
		release := func(*resource) { close(entered); state.jobs <- 1 }
		runtime.SetFinalizer(new(resource), release)
		for {
			runtime.GC()
			select {
			case <-entered:
				return
			case <-time.After(time.Millisecond):
			}
		}
	},
	"lock whose holder has ended": func() {
		go func() { state.mu.Lock() }()
		wait()
		times(5, func() { state.mu.Lock() })
	},
	"two locks in two orders": func() {
		go func() { state.mu.Lock(); wait(); state.other.Lock() }()
		go func() { state.other.Lock(); wait(); state.mu.Lock() }()
	},
	"read lock taken twice with a writer in between": func() {
		go func() { state.rw.RLock(); wait(); wait(); state.rw.RLock() }()
		wait()
		go func() { state.rw.Lock() }()
	},
	"writer behind a reader that never unlocks": func() {
		go func() { state.rw.RLock(); select {} }()
		wait()
		go func() { state.rw.Lock() }()
		wait()
		times(3, func() { state.rw.RLock() })
	},
	"lock held while sending to nobody": func() {
		go func() { state.mu.Lock(); defer state.mu.Unlock(); state.jobs <- 1 }()
		wait()
		times(20, func() { state.mu.Lock(); state.mu.Unlock() })
	},
	"log lock behind a full pipe": func() {
		_, w, err := os.Pipe()
		if err != nil {
			panic(err)
		}
		log := func() {
			state.mu.Lock()
			defer state.mu.Unlock()
			for {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					panic(err)
				}
			}
		}
		times(6, log)
	},
	"pool of connections held by those who want another": func() {
		state.db.SetMaxOpenConns(2)
		var both sync.WaitGroup
		both.Add(2)
		times(2, func() {
			tx, err := state.db.Begin()
			if err != nil {
				panic(err)
			}
			both.Done()
			both.Wait()
			_, _ = state.db.Exec("update")
			_ = tx.Rollback()
		})
	},
	"rows that nobody closes": func() {
		state.db.SetMaxOpenConns(1)
		if _, err := state.db.Query("select"); err != nil {
			panic(err)
		}
		times(4, func() { _, _ = state.db.Query("select") })
	},
	"workers that have died": func() {
		times(2, func() { <-state.jobs })
		times(6, func() { state.jobs <- 1; state.jobs <- 2 })
	},
	"slots that nobody gives back": func() {
		times(6, func() { state.slots <- struct{}{} })
	},
	"fan-in whose reader has left": func() {
		results := make(chan int)
		times(4, func() { results <- 1 })
		<-results
	},
	"answer that never comes": func() {
		answer := make(chan int)
		go func() { <-answer }()
	},
	"context nobody cancels": func() {
		ctx, cancel := context.WithCancel(context.Background())
		_ = cancel
		times(3, func() { <-ctx.Done() })
	},
	"select of dead channels": func() {
		a, b := make(chan int), make(chan int)
		times(2, func() {
			select {
			case <-a:
			case b <- 1:
			}
		})
	},
	"nil channel": func() {
		var never chan int
		go func() { <-never }()
	},
	"condition nobody signals": func() {
		cond := sync.NewCond(&sync.Mutex{})
		times(2, func() { cond.L.Lock(); cond.Wait() })
	},
	"wait group never done": func() {
		var group sync.WaitGroup
		group.Add(2)
		go func() { group.Done() }()
		go func() { group.Wait() }()
	},
	"group whose members wait for a lock": func() {
		state.mu.Lock()
		go func() {
			var group sync.WaitGroup
			for i := 0; i < 3; i++ {
				group.Add(1)
				go func() { defer group.Done(); state.mu.Lock() }()
			}
			group.Wait()
		}()
	},
	"once within itself": func() {
		go state.once.Do(func() { state.once.Do(func() {}) })
		wait()
		times(2, func() { state.once.Do(func() {}) })
	},
	"pipe without a reader": func() {
		times(2, func() { _, _ = state.pipe.Write([]byte("hello")) })
	},
	"handlers behind a lock": func() {
		state.mu.Lock()
		times(5, func() {
			response, err := http.Get(state.server.URL)
			if err == nil {
				response.Body.Close()
			}
		})
	},
	"shutdown behind a request": func() {
		go func() { _, _ = http.Get(state.server.URL + "/forever") }()
		wait()
		go func() { _ = state.server.Config.Shutdown(context.Background()) }()
	},
	"transport whose only connection is taken": func() {
		state.client.Transport = &http.Transport{MaxConnsPerHost: 1}
		if _, err := state.client.Get(state.server.URL + "/large"); err != nil {
			panic(err)
		}
		times(3, func() { _, _ = state.client.Get(state.server.URL + "/large") })
	},
	"goroutines of an iterator": func() {
		values := make(chan int)
		go func() {
			defer close(values)
			for i := 0; ; i++ {
				values <- i
			}
		}()
		<-values
	},
}

// One row, which is never read to its end.
type rows struct{}

func (rows) Columns() []string         { return []string{"a"} }
func (rows) Close() error              { return nil }
func (rows) Next([]driver.Value) error { return nil }

type conn struct{}

func (conn) Prepare(string) (driver.Stmt, error) { return stmt{}, nil }
func (conn) Close() error                        { return nil }
func (conn) Begin() (driver.Tx, error)           { return tx{}, nil }

type tx struct{}

func (tx) Commit() error   { return nil }
func (tx) Rollback() error { return nil }

type stmt struct{}

func (stmt) Close() error                               { return nil }
func (stmt) NumInput() int                              { return 0 }
func (stmt) Exec([]driver.Value) (driver.Result, error) { return nil, errors.New("no") }
func (stmt) Query([]driver.Value) (driver.Rows, error)  { return rows{}, nil }

type connector struct{}

func (connector) Connect(context.Context) (driver.Conn, error) { return conn{}, nil }
func (connector) Driver() driver.Driver                        { return nil }

func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) { state.mu.Lock(); state.mu.Unlock() })
	mux.HandleFunc("/forever", func(http.ResponseWriter, *http.Request) { state.other.Lock(); state.other.Lock() })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 16<<20)) })
	return mux
}

func main() {
	if len(os.Args) < 2 {
		names := []string{}
		for name := range hangs {
			names = append(names, name)
		}
		sort.Strings(names)
		_ = json.NewEncoder(os.Stdout).Encode(names)
		return
	}
	state.jobs, state.slots = make(chan int), make(chan struct{}, 2)
	_, state.pipe = io.Pipe()
	state.db = sql.OpenDB(connector{})
	state.server = httptest.NewServer(handler())
	state.client = &http.Client{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() { _, _ = listener.Accept() }()
	work := make(chan int)
	times(3, func() { <-work })
	hangs[os.Args[1]]()
	wait()
	fmt.Println(`{"ready":true}`)
	_, _ = io.Copy(io.Discard, os.Stdin)
	close(work)
}
