// Vitals tells what its runtime says of itself, and has whatever is wrong with it that it is told to have.
//
// It is as quiet as a Go program can be between commands: it waits for one in a system call, and what it collects, it
// collects into memory that is there already, so that whoever reads the same from outside afterwards finds the same.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"strings"
	"syscall"
)

var (
	memory  runtime.MemStats
	samples []metrics.Sample
	command [256]byte
	done    = []byte("{}\n")
)

func main() {
	fault := flag.String("fault", "", "what is to be wrong")
	count := flag.Int("n", 0, "how much of it")
	rate := flag.Int("memprofilerate", runtime.MemProfileRate, "runtime.MemProfileRate")
	flag.Parse()
	runtime.MemProfileRate = *rate
	for _, description := range metrics.All() {
		if !strings.HasPrefix(description.Name, "/godebug/") {
			samples = append(samples, metrics.Sample{Name: description.Name})
		}
	}
	// Its histograms are allocated at the first reading.
	metrics.Read(samples)
	if *fault != "" {
		start, known := faults[*fault]
		if !known {
			panic("unknown fault " + *fault)
		}
		start(*count)
	}
	fmt.Println("{}")
	for {
		switch said := strings.Fields(next()); said[0] {
		case "take":
			take()
		case "tell":
			tell()
		case "names":
			names()
		case "gc":
			runtime.GC()
			write(done)
		case "profile":
			file, err := os.Create(said[2])
			must(err)
			must(pprof.Lookup(said[1]).WriteTo(file, 0))
			must(file.Close())
			write(done)
		case "do":
			works[said[1]]()
			write(done)
		case "exit":
			return
		}
	}
}

// next waits for a line without letting go of the processor in a way that would make others run.
func next() string {
	length := 0
	for {
		n, err := syscall.Read(0, command[length:length+1])
		if err == syscall.EINTR {
			continue
		}
		if n <= 0 {
			os.Exit(0)
		}
		if command[length] == '\n' {
			return string(command[:length])
		}
		length++
	}
}

func write(line []byte) {
	_, err := syscall.Write(1, line)
	must(err)
}

// take collects what the runtime says, into what is there.
func take() {
	runtime.GC()
	runtime.GC()
	// This one adds up what its Ps have allocated, for the other to find.
	runtime.ReadMemStats(&memory)
	metrics.Read(samples)
	write(done)
}

func tell() {
	values := map[string]any{}
	for _, sample := range samples {
		switch sample.Value.Kind() {
		case metrics.KindUint64:
			values[sample.Name] = sample.Value.Uint64()
		case metrics.KindFloat64:
			values[sample.Name] = sample.Value.Float64()
		case metrics.KindFloat64Histogram:
			values[sample.Name] = sample.Value.Float64Histogram().Counts
		}
	}
	line, err := json.Marshal(map[string]any{"memory": memory, "metrics": values})
	must(err)
	write(append(line, '\n'))
}

// names has all that runtime/metrics has.
func names() {
	all := []string{}
	for _, description := range metrics.All() {
		all = append(all, description.Name)
	}
	line, err := json.Marshal(all)
	must(err)
	write(append(line, '\n'))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func init() {
	// A collection by itself would change what was taken.
	debug.SetGCPercent(100)
}
