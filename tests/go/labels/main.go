// Command labels has goroutines with labels of all kinds, and says which, as its own goroutine profile tells.
//
// It prints {"ready":true} when all of them wait, and for each line "profile" {"text":PROFILE}, its goroutine profile with debug=1.
// On the line "leak" it leaks three goroutines of tenant x and two of tenant y, each with a request of its own, and prints
// {"ready":true}. It ends on the line "exit".
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
)

var none = make(chan int)

// wait has so many goroutines with these labels wait for good.
func wait(ctx context.Context, count int, labels ...string) {
	var waiting sync.WaitGroup
	pprof.Do(ctx, pprof.Labels(labels...), func(context.Context) {
		for i := 0; i < count; i++ {
			waiting.Add(1)
			go func() {
				waiting.Done()
				<-none
			}()
		}
	})
	waiting.Wait()
}

// leak has goroutines with these labels wait for what nobody else has.
func leak(ctx context.Context, labels ...string) {
	waiting := make(chan int)
	pprof.Do(ctx, pprof.Labels(labels...), func(context.Context) {
		go func() {
			never := make(chan int)
			close(waiting)
			<-never
		}()
	})
	<-waiting
}

// many are so many labels.
func many(count int) []string {
	var labels []string
	for i := 0; i < count; i++ {
		labels = append(labels, "key"+strconv.Itoa(i), strings.Repeat("v", i))
	}
	return labels
}

func main() {
	ctx := context.Background()
	wait(ctx, 50, "tenant", "a", "handler", "/search")
	wait(ctx, 30, "tenant", "b", "handler", "/search")
	wait(ctx, 5, "tenant", "")
	wait(ctx, 3, "quo\"te\n", "é☃\t\\")
	// As many as a bucket of a map holds, one more, and so many that the map has grown.
	for _, count := range []int{8, 9, 13, 14, 27, 53} {
		wait(ctx, 2, many(count)...)
	}
	// Labels of labels: what is set outside stays.
	pprof.Do(ctx, pprof.Labels("outer", "1", "shadowed", "no"), func(ctx context.Context) {
		for i := 0; i < 12; i++ {
			wait(ctx, 1, "shadowed", "yes", "inner", strconv.Itoa(i))
		}
		pprof.Do(ctx, pprof.Labels(many(7)...), func(ctx context.Context) {
			wait(ctx, 4, many(10)...)
		})
	})
	// One that has put its labels away.
	var waiting sync.WaitGroup
	waiting.Add(1)
	go func() {
		pprof.SetGoroutineLabels(pprof.WithLabels(ctx, pprof.Labels("gone", "1")))
		pprof.SetGoroutineLabels(ctx)
		waiting.Done()
		<-none
	}()
	waiting.Wait()

	input := bufio.NewScanner(os.Stdin)
	fmt.Println(`{"ready":true}`)
	for input.Scan() {
		switch input.Text() {
		case "profile":
			var text bytes.Buffer
			pprof.Lookup("goroutine").WriteTo(&text, 1)
			json.NewEncoder(os.Stdout).Encode(map[string]string{"text": text.String()})
		case "leak":
			for i, tenant := range []string{"x", "x", "x", "y", "y"} {
				leak(ctx, "tenant", tenant, "request", strconv.Itoa(i))
			}
			fmt.Println(`{"ready":true}`)
		case "exit":
			return
		}
	}
}
