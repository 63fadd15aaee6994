// Frames prints what the runtime says of program counters, for comparison with what parkwarden reads from the binary.
//
// Usage: frames LOW HIGH STEP, with LOW and HIGH the ends of the text relative to the entry of main.main. Output:
//
//	S PC...                       the return addresses of a stack, innermost first
//	F FUNCTION \t FILE \t LINE    a frame of that stack
//	P PC \t FUNCTION \t FILE \t LINE    the innermost frame at a program counter
//
// All program counters are relative to the entry of main.main, so that the slide of the process does not matter.
package main

import (
	"bufio"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"sort"
	"strconv"
	"strings"
)

var (
	out  = bufio.NewWriter(os.Stdout)
	base uintptr
)

type tree struct{ left, right *tree }

//go:noinline
func stack() {
	var pcs [64]uintptr
	n := runtime.Callers(0, pcs[:])
	fmt.Fprint(out, "S")
	for _, pc := range pcs[:n] {
		fmt.Fprintf(out, " %d", int64(pc-base))
	}
	fmt.Fprintln(out)
	frames := runtime.CallersFrames(pcs[:n])
	for {
		frame, more := frames.Next()
		fmt.Fprintf(out, "F %s\t%s\t%d\n", frame.Function, frame.File, frame.Line)
		if !more {
			return
		}
	}
}

// Three levels that the compiler inlines, with two calls of the same function in one of them.
func innermost() { stack() }
func inner()     { innermost() }
func outer()     { inner(); innermost() }

func (t *tree) visit() {
	if t == nil {
		return
	}
	t.left.visit()
	func() { outer() }()
	t.right.visit()
}

func generic[T any](value T) T {
	outer()
	return value
}

func deferred() {
	defer outer()
	defer func() {
		if recover() != nil {
			inner()
		}
	}()
	var none *tree
	_ = *none.left
}

func main() {
	defer out.Flush()
	base = runtime.FuncForPC(reflect.ValueOf(main).Pointer()).Entry()
	(&tree{left: &tree{}}).visit()
	generic(1)
	generic("one")
	generic([]int{1})
	deferred()
	words := []string{"b", "a"}
	sort.Slice(words, func(i, j int) bool { inner(); return words[i] < words[j] })
	strings.Map(func(r rune) rune { outer(); return r }, "a")
	done := make(chan struct{})
	go func() { defer close(done); outer() }()
	<-done
	number := func(index int) int64 {
		value, err := strconv.ParseInt(os.Args[index], 10, 64)
		if err != nil {
			panic(err)
		}
		return value
	}
	for at := number(1); at < number(2); at += number(3) {
		// CallersFrames takes return addresses.
		frames := runtime.CallersFrames([]uintptr{base + uintptr(at) + 1})
		frame, _ := frames.Next()
		fmt.Fprintf(out, "P %d\t%s\t%s\t%d\n", at, frame.Function, frame.File, frame.Line)
	}
}
