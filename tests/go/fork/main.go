// Command fork forks without executing anything: its child runs the same binary's code, with the same probes in it.
//
// It prints {"ready":true}. "churn N" starts N goroutines one after the other, "fork N" has a forked child do so; each
// answers {"pid":P} of who did, when they have all ended. "stay N" forks a child that leaks N goroutines and stays, and
// answers with its pid. It ends on "exit".
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

func churn(n int) {
	done := make(chan struct{})
	for i := 0; i < n; i++ {
		go func() { done <- struct{}{} }()
		<-done
	}
}

func leak(n int) {
	for i := 0; i < n; i++ {
		var started bool
		go func() {
			started = true
			make(chan int) <- 1
		}()
		// There is one thread: once it has started, whoever runs next, it has parked.
		for !started {
			runtime.Gosched()
		}
	}
}

// fork returns twice. Of the threads only the caller's goes on in the child: enough for what it does.
func fork() uintptr {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		panic(errno)
	}
	return pid
}

func main() {
	// A collection would wait for threads that the child does not have.
	debug.SetGCPercent(-1)
	fmt.Println(`{"ready":true}`)
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		words := strings.Fields(input.Text())
		n := 0
		if len(words) > 1 {
			n, _ = strconv.Atoi(words[1])
		}
		switch words[0] {
		case "churn":
			churn(n)
			fmt.Printf("{\"pid\":%d}\n", os.Getpid())
		case "fork":
			child := fork()
			if child == 0 {
				churn(n)
				syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
			}
			var status syscall.WaitStatus
			if _, err := syscall.Wait4(int(child), &status, 0, nil); err != nil || status != 0 {
				panic(fmt.Sprint("the child: ", err, status))
			}
			fmt.Printf("{\"pid\":%d}\n", child)
		case "stay":
			child := fork()
			if child == 0 {
				// It ends with its parent.
				syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0)
				leak(n)
				fmt.Printf("{\"pid\":%d}\n", os.Getpid())
				for {
					syscall.RawSyscall(syscall.SYS_PAUSE, 0, 0, 0)
				}
			}
		case "exit":
			return
		}
	}
}
