//! A parsed Go binary: everything the agent needs to know of it before it touches the process.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::buildinfo::{BuildInfo, BuildInfoError};
use super::dwarf::{self, DwarfError};
use super::elf::{Elf, ElfError, Image};
use super::layout::{self, LayoutError, LayoutSource, RuntimeLayout, Structs};
use super::layout_table::LayoutTable;
use super::pclntab::{Func, PcLnTab, PcLnTabError, locate};
use super::symbols::{self, Symbol};
use super::version::GoVersion;
use super::{Arch, Source, moduledata, proof_layout, table, wait_reasons};

/// The oldest Go whose tables are read.
const OLDEST: (u32, u32) = (1, 18);
/// Most bytes of one function's code.
const MAX_CODE: u64 = 1 << 20;
/// Read beyond the last function data that a function refers to: room for that data itself.
const FUNCDATA_TAIL: u64 = 1 << 18;
/// Most function data read. That of a 100 MB program has some 8 MB.
const MAX_FUNCDATA: u64 = 256 << 20;
/// Most of `runtime.moduledata` read; it has some 600 bytes.
pub(crate) const MAX_MODULEDATA: usize = 4096;

/// Where the addresses of runtime functions and variables came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SymbolSource {
    /// The ELF symbol table.
    Symtab,
    /// Functions from the pclntab; variables found by their contents.
    Pclntab,
}

/// Why a binary cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Some other kind of file.
    #[error("not an ELF executable, so not a Go program that runs here")]
    NotElf,
    /// An executable made by something else.
    #[error("not a Go program: it has no Go build information")]
    NotGo,
    /// Another machine's.
    #[error("{0}: parkwarden watches 64-bit Go programs for x86-64 and AArch64")]
    UnsupportedArch(String),
    /// Too old, or without a version number.
    #[error("built with {version}: parkwarden supports Go 1.18 and later; rebuild it with a newer Go")]
    UnsupportedVersion {
        /// As the binary says.
        version: String,
    },
    /// Nothing says where this runtime keeps its fields.
    #[error(
        "the runtime's struct layouts of {version} are not known: {reason}; rebuild it without -ldflags=-s or -w, \
         or use a parkwarden that knows {version}"
    )]
    NoLayout {
        /// As the binary says.
        version: String,
        /// What was tried.
        reason: String,
    },
    /// No function tables.
    #[error("no pclntab was found: the file is damaged or packed (UPX and the like); run the original binary")]
    NoPclntab,
    /// No way to tell where the program's code begins.
    #[error("the start of the program's code is not known: {0}; rebuild it without -ldflags=-s")]
    NoTextStart(&'static str),
    /// The file contradicts itself.
    #[error("the binary is malformed: {what} at offset {offset:#x}")]
    Malformed {
        /// What is wrong.
        what: String,
        /// Where in the file or table.
        offset: u64,
    },
    /// The file cannot be read, or not within the limits.
    #[error("the binary cannot be read: {0}")]
    Unreadable(ElfError),
}

impl Refusal {
    /// One word of a fixed set, for counting.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotElf | Self::NotGo => "not_go",
            Self::UnsupportedArch(_) => "unsupported_arch",
            Self::UnsupportedVersion { .. } => "unsupported_version",
            Self::NoLayout { .. } => "no_layout",
            Self::NoPclntab | Self::NoTextStart(_) => "no_pclntab",
            Self::Malformed { .. } => "malformed",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

impl From<ElfError> for Refusal {
    fn from(error: ElfError) -> Self {
        match error {
            ElfError::NotElf => Self::NotElf,
            ElfError::Unsupported(what) => Self::UnsupportedArch(what),
            ElfError::Malformed { what, offset } => Self::Malformed { what: what.into(), offset },
            other => Self::Unreadable(other),
        }
    }
}

impl From<PcLnTabError> for Refusal {
    fn from(error: PcLnTabError) -> Self {
        match error {
            PcLnTabError::TooOld(what) => Self::UnsupportedVersion { version: what.into() },
            PcLnTabError::Malformed { what, offset } => {
                Self::Malformed { what: format!("pclntab: {what}"), offset: offset as u64 }
            }
        }
    }
}

/// A Go binary, understood. Owns what it needs; the source of bytes can be closed.
#[derive(Clone, Debug)]
pub struct GoBinary {
    /// Toolchain version that built it.
    pub version: GoVersion,
    /// Modules and build settings.
    pub build: BuildInfo,
    /// Instruction set.
    pub arch: Arch,
    /// Position-independent: loaded at a slide.
    pub pie: bool,
    /// Without a symbol table.
    pub stripped: bool,
    /// The runtime's field offsets.
    pub layout: RuntimeLayout,
    /// All structs that were described, for what needs more than [`GoBinary::layout`].
    pub structs: Structs,
    /// Where they came from.
    pub layout_source: LayoutSource,
    /// How they differ from what the table knows of this version: somebody changed its runtime.
    pub layout_differs: Vec<String>,
    /// Where addresses came from.
    pub symbol_source: SymbolSource,
    /// The runtime's wait reasons: the text for each number.
    pub wait_reasons: Vec<String>,
    /// Link-time address of the slice `runtime.allgs`, if a symbol says so.
    pub allgs: Option<u64>,
    /// Link-time address of `runtime.firstmoduledata`.
    pub moduledata: Option<u64>,
    /// Function table, lines, inlining.
    pub pclntab: Arc<PcLnTab>,
    /// Sections and segments.
    pub elf: Elf,
}

impl GoBinary {
    /// Understands a binary; layouts that it does not carry come from the table of this build.
    pub fn parse(source: &dyn Source) -> Result<Self, Refusal> {
        Self::parse_with(source, table::bundled())
    }

    /// Understands a binary, with `table` for the layouts it does not carry itself.
    pub fn parse_with(source: &dyn Source, table: &dyn LayoutTable) -> Result<Self, Refusal> {
        let elf = Elf::parse(source)?;
        let build = BuildInfo::parse(source, &elf).map_err(|error| match error {
            BuildInfoError::NotGo => Refusal::NotGo,
            BuildInfoError::Old => Refusal::UnsupportedVersion { version: "Go 1.17 or earlier".into() },
            BuildInfoError::Malformed(what) => Refusal::Malformed {
                what: format!("Go build information: {what}"),
                offset: elf.section(".go.buildinfo").map_or(0, |section| section.offset),
            },
            BuildInfoError::Elf(error) => error.into(),
        })?;
        let version = GoVersion::parse(&build.go_version)
            .filter(|version| version.at_least(OLDEST.0, OLDEST.1))
            .ok_or_else(|| Refusal::UnsupportedVersion { version: build.go_version.clone() })?;
        let symbols = Symbols::find(source, &elf)?;
        let functions = Functions::read(source, &elf, &symbols)?;
        let moduledata = match symbols.moduledata {
            Some(symbol) => Some(symbol.address),
            None => moduledata::find(source, &elf, &functions.pointers)?,
        };
        let (structs, layout_source) = structs(source, &elf, &version, table)?;
        let layout_differs = match (layout_source, table.structs(&version, elf.arch)) {
            (LayoutSource::Dwarf, Ok(known)) => table::contradictions(&structs, &known),
            _ => Vec::new(),
        };
        let no_layout = |error: LayoutError| Refusal::NoLayout {
            version: version.to_string(),
            reason: format!("incomplete description: {error}"),
        };
        let layout = RuntimeLayout::from_structs(&structs).map_err(no_layout)?;
        let variables = Variables::read(source, &elf, moduledata, symbols.wait_reasons, &structs)?;
        let pclntab = functions.table(source, &elf, &version, &symbols, &variables)?;
        let wait_reasons = match variables.wait_reasons {
            Some(reasons) => reasons,
            None => table.wait_reasons(&version).ok_or_else(|| Refusal::NoLayout {
                version: version.to_string(),
                reason: "its wait reasons are in no table and the binary has no symbol for them".into(),
            })?,
        };
        let stripped = symbols::table(&elf).is_none();
        Ok(Self {
            arch: elf.arch,
            pie: elf.pie,
            stripped,
            layout,
            structs,
            layout_source,
            layout_differs,
            symbol_source: if stripped { SymbolSource::Pclntab } else { SymbolSource::Symtab },
            wait_reasons,
            allgs: symbols.allgs.map(|symbol| symbol.address),
            moduledata,
            pclntab: Arc::new(pclntab),
            version,
            build,
            elf,
        })
    }

    /// The function called `name`.
    pub fn function(&self, name: &str) -> Option<Func<'_>> {
        self.pclntab.function_named(name)
    }

    /// Whether the stack ends in the function that contains `pc`.
    pub fn is_stack_bottom(&self, pc: u64) -> bool {
        self.pclntab.func(pc).is_some_and(|func| func.is_stack_bottom())
    }

    /// The machine code of `func`, its padding included, at most one megabyte.
    pub fn code(&self, source: &dyn Source, func: &Func<'_>) -> Result<Vec<u8>, ElfError> {
        let size = func.end.saturating_sub(func.entry);
        if size > MAX_CODE {
            return Err(ElfError::TooLarge { what: format!("the code of {}", func.name), limit: MAX_CODE });
        }
        let mut code = vec![0; size as usize];
        self.elf.read_at_vaddr(source, func.entry, &mut code)?;
        Ok(code)
    }
}

/// The symbols that parsing uses.
struct Symbols {
    allgs: Option<Symbol>,
    moduledata: Option<Symbol>,
    wait_reasons: Option<Symbol>,
    text: Option<Symbol>,
    gofunc: Option<Symbol>,
    pclntab: Option<Symbol>,
    epclntab: Option<Symbol>,
}

impl Symbols {
    fn find(source: &dyn Source, elf: &Elf) -> Result<Self, ElfError> {
        let names = [
            "runtime.allgs",
            "runtime.firstmoduledata",
            "runtime.waitReasonStrings",
            "runtime.text",
            "go:func.*",
            // Before Go 1.20.
            "go.func.*",
            "runtime.pclntab",
            "runtime.epclntab",
        ];
        let found = symbols::lookup(source, elf, &names)?;
        let symbol = |name: &str| names.iter().zip(&found).find(|(known, _)| **known == name).and_then(|(_, s)| *s);
        Ok(Self {
            allgs: symbol("runtime.allgs"),
            moduledata: symbol("runtime.firstmoduledata"),
            wait_reasons: symbol("runtime.waitReasonStrings"),
            text: symbol("runtime.text"),
            gofunc: symbol("go:func.*").or(symbol("go.func.*")),
            pclntab: symbol("runtime.pclntab"),
            epclntab: symbol("runtime.epclntab"),
        })
    }
}

/// The struct layouts from the first source that has them.
fn structs(
    source: &dyn Source,
    elf: &Elf,
    version: &GoVersion,
    table: &dyn LayoutTable,
) -> Result<(Structs, LayoutSource), Refusal> {
    let wanted = layout::together(&[layout::WANTED, proof_layout::WANTED]);
    let dwarf = match dwarf::structs(source, elf, &wanted) {
        Ok(structs) => return Ok((structs, LayoutSource::Dwarf)),
        Err(error @ (DwarfError::NoDebugInfo | DwarfError::NoTypes | DwarfError::Limit(_))) => error,
        Err(DwarfError::Elf(error)) => return Err(error.into()),
        Err(DwarfError::Malformed { what, offset }) => {
            return Err(Refusal::Malformed { what: format!("debug information: {what}"), offset });
        }
    };
    match table.structs(version, elf.arch) {
        Ok(structs) => Ok((structs, LayoutSource::Table)),
        Err(reason) => {
            Err(Refusal::NoLayout { version: version.to_string(), reason: format!("{dwarf}, and {reason}") })
        }
    }
}

/// What the file says is in the runtime's variables at start.
struct Variables {
    text: Option<u64>,
    gofunc: Option<u64>,
    wait_reasons: Option<Vec<String>>,
}

impl Variables {
    fn read(
        source: &dyn Source,
        elf: &Elf,
        moduledata: Option<u64>,
        reasons: Option<Symbol>,
        structs: &Structs,
    ) -> Result<Self, Refusal> {
        let layout = structs.get("runtime.moduledata");
        let size = layout.map_or(0, |layout| (layout.size as usize).min(MAX_MODULEDATA));
        let moduledata = moduledata.filter(|_| size > 0).map(|at| Image::at(at, size));
        let reasons = reasons.and_then(wait_reasons::request);
        let has_moduledata = moduledata.is_some();
        let mut images: Vec<Image> = moduledata.into_iter().chain(reasons).collect();
        elf.read_images(source, &mut images)?;
        let mut images = images.into_iter();
        let moduledata = if has_moduledata { images.next() } else { None };
        let word = |field| {
            let offset = layout::offset(structs, layout::WANTED, "runtime.moduledata", field).ok()?;
            super::bytes::u64_at(&moduledata.as_ref()?.bytes, offset as usize).filter(|value| *value != 0)
        };
        Ok(Self {
            text: word("text"),
            gofunc: word("gofunc"),
            wait_reasons: match images.next() {
                Some(headers) => wait_reasons::from_headers(source, elf, &headers)?,
                None => None,
            },
        })
    }
}

/// The pclntab's bytes, and where they are.
struct Functions {
    data: Vec<u8>,
    /// What `runtime.firstmoduledata` begins with.
    pointers: [u64; 7],
}

impl Functions {
    fn read(source: &dyn Source, elf: &Elf, symbols: &Symbols) -> Result<Self, Refusal> {
        let place = locate::locate(source, elf, symbols.pclntab, symbols.epclntab).ok_or(Refusal::NoPclntab)?;
        let data = locate::read(source, elf, place)?;
        let pointers = PcLnTab::moduledata_pointers(&data, place.vaddr)?;
        Ok(Self { data, pointers })
    }

    /// The function tables, with the function data they refer to.
    fn table(
        self,
        source: &dyn Source,
        elf: &Elf,
        version: &GoVersion,
        symbols: &Symbols,
        variables: &Variables,
    ) -> Result<PcLnTab, Refusal> {
        // What the runtime itself uses first. The header's value needs a relocation when the program has a slide.
        let header = PcLnTab::header_text_start(&self.data)?;
        let text = variables
            .text
            .or(symbols.text.map(|symbol| symbol.address))
            .or(Some(header).filter(|start| *start != 0 && !elf.pie))
            .ok_or(Refusal::NoTextStart("neither symbols nor moduledata were found"))?;
        let mut table = PcLnTab::new(self.data, text, version)?;
        let in_code = table.functions().next().and_then(|func| elf.segment(func.entry)).is_some_and(|part| part.exec);
        if !in_code {
            return Err(Refusal::NoTextStart("the first function would lie outside the code"));
        }
        if let Some(gofunc) = variables.gofunc.or(symbols.gofunc.map(|symbol| symbol.address)) {
            let (_, left) = elf.file_range(gofunc).ok_or(ElfError::NotInFile { address: gofunc, len: 1 })?;
            let wanted = u64::from(table.last_funcdata()).saturating_add(FUNCDATA_TAIL);
            let mut bytes = vec![0; left.min(wanted).min(MAX_FUNCDATA).min(source.len()) as usize];
            elf.read_at_vaddr(source, gofunc, &mut bytes)?;
            table.set_funcdata(bytes);
        }
        Ok(table)
    }
}
