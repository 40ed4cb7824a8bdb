import {
  errnoName,
  FileTable,
  type IoctlArgument,
  IommufdFile,
  ioctlCommand,
  type Process,
  type StructLayout,
  StructView,
  UAPI,
  UserPages,
} from '../src/index.ts';
import { IommufdSetup } from './iommufd-setup.ts';

/** Where the user's arrays are: two pages, the one after them cannot be written. */
export const ARRAY = 0x7000_0000n;
export const READ_ONLY_ARRAY = ARRAY + 0x2000n;
/** Nothing is there. */
export const NOWHERE = 0x6000_0000n;

/** The binary door to an {@link IommufdSetup}. */
export class UapiSetup extends IommufdSetup {
  readonly files = new FileTable(8);
  readonly file = new IommufdFile(this.fd, this.files);
  readonly memory = new UserPages();

  constructor(options: ConstructorParameters<typeof IommufdSetup>[0] = {}) {
    super(options);
    this.memory.map(ARRAY, 0x2000);
    this.memory.map(READ_ONLY_ARRAY, 0x1000, false);
  }

  /** What the system call returns. */
  raw(command: number, argument: IoctlArgument, process?: Process): number {
    const options = process ? { memory: this.memory, process } : { memory: this.memory };
    return this.run(this.file.ioctl(this.agent, command, argument, options));
  }

  /** `0` or an errno's name. */
  ioctl(nr: number, argument: IoctlArgument): string {
    const result = this.raw(ioctlCommand(nr), argument);
    return result < 0 ? (errnoName(result) ?? `${result}`) : `${result}`;
  }

  newIoas(): number {
    const command = struct(UAPI.iommu_ioas_alloc, {});
    if (this.ioctl(0x81, command.bytes) !== '0') throw new Error('no IOAS');
    return command.number('out_ioas_id');
  }
}

/** A struct of a layout with its `size` (or `argsz`) filled in. */
export function struct<Field extends string>(
  layout: StructLayout<Field>,
  fields: Partial<Record<Field, number | bigint>>,
): StructView<Field> {
  const view = new StructView(layout);
  for (const size of ['size', 'argsz'] as Field[]) if (layout.fields[size]?.offset === 0) view.set(size, layout.size);
  for (const [name, value] of Object.entries<number | bigint | undefined>(fields))
    if (value !== undefined) view.set(name as Field, value);
  return view;
}
