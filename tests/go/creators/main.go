// Command creators comes to its go statements in many ways, and says in which and how often, as runtime.Callers tells.
//
// It prints {"ready":true}. For the line "go" it runs each go statement as often as each way says, all of whose goroutines then
// wait for good, and prints {"ways":[{"statement":FUNCTION,"times":N,"calls":[{"function":F,"line":L},...]},...]}: calls are those
// that led to the function with the go statement, innermost first, without the runtime's own. It ends on the line "exit".
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"sync"
	"time"
)

type call struct {
	Function string `json:"function"`
	Line     int    `json:"line"`
}

type way struct {
	Statement string `json:"statement"`
	Times     int    `json:"times"`
	Calls     []call `json:"calls"`
}

var (
	mu   sync.Mutex
	ways = map[string]*way{}
	none = make(chan int)
)

// note remembers how its caller, which has the go statement, was called.
//
//go:noinline
func note() {
	pcs := make([]uintptr, 128)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	w := way{Calls: []call{}}
	for {
		frame, more := frames.Next()
		switch {
		case frame.Function == "runtime.main" || frame.Function == "runtime.goexit" || frame.Function == "":
		case w.Statement == "":
			w.Statement = frame.Function
		default:
			w.Calls = append(w.Calls, call{frame.Function, frame.Line})
		}
		if !more {
			break
		}
	}
	key := fmt.Sprint(w)
	mu.Lock()
	defer mu.Unlock()
	if ways[key] == nil {
		ways[key] = &w
	}
	ways[key].Times++
}

//go:noinline
func spawn() {
	note()
	go func() { <-none }()
}

//go:noinline
func seldom() { spawn() }

//go:noinline
func often() {
	for i := 0; i < 300; i++ {
		spawn()
	}
}

// inlined is, into its caller.
func inlined() { spawn() }

type server struct{ name string }

type handler interface{ serve(n int) int }

//go:noinline
func (s *server) serve(n int) int {
	spawn()
	return n + len(s.name)
}

type wrapped struct{ *server }

//go:noinline
func generic[T any](values []T, each func(T)) {
	for _, value := range values {
		each(value)
	}
}

//go:noinline
func deep(n int) int {
	if n == 0 {
		spawn()
		return 0
	}
	return deep(n-1) + 1
}

//go:noinline
func deferred() {
	defer func() { spawn() }()
}

//go:noinline
func recovered() {
	defer func() {
		recover()
		spawn()
	}()
	panic("for the way back")
}

//go:noinline
func large() int {
	var array [4096]int
	array[runtime.NumCPU()%4096] = 1
	spawn()
	return array[7]
}

// local has a go statement of its own.
//
//go:noinline
func local(done func()) {
	note()
	go func() {
		done()
		<-none
	}()
}

// root is a goroutine that has the go statement itself.
func root(done chan bool) {
	note()
	go func() { <-none }()
	done <- true
}

func run() {
	for i := 0; i < 3; i++ {
		seldom()
	}
	inlined()
	s := &server{"s"}
	s.serve(1)
	handler.serve(s, 2)
	handler.serve(wrapped{s}, 3)
	method := s.serve
	method(4)
	generic([]int{1, 2}, func(int) { spawn() })
	generic([]string{"a"}, func(string) { spawn() })
	deep(7)
	deep(60)
	deferred()
	recovered()
	large()
	sort.Slice(make([]int, 2), func(i, j int) bool { spawn(); return false })
	strings.Map(func(r rune) rune { spawn(); return r }, "x")
	var once sync.Once
	once.Do(spawn)
	var started sync.WaitGroup
	started.Add(1)
	local(started.Done)
	started.Wait()
	done := make(chan bool)
	go func() { root(done) }()
	<-done
	time.AfterFunc(time.Millisecond, func() {
		spawn()
		done <- true
	})
	<-done
	go func() {
		seldom()
		done <- true
	}()
	<-done
	// Last, because the first are all told of.
	often()
}

func main() {
	input := bufio.NewScanner(os.Stdin)
	fmt.Println(`{"ready":true}`)
	for input.Scan() {
		switch input.Text() {
		case "go":
			run()
			var all []*way
			for _, w := range ways {
				all = append(all, w)
			}
			json.NewEncoder(os.Stdout).Encode(map[string]any{"ways": all})
		case "exit":
			return
		}
	}
}
